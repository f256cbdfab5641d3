"""Guidance, denoisers and samplers that are wrong in one place."""

from dataclasses import replace
from functools import partial

import torch

from broken_parts import Broken
from pretzel.sampling import (
    AttentionTemperature,
    GaussianMixing,
    GaussSeidelJacobi,
    Jacobi,
    LearnedDenoiser,
    LinearGuidance,
    ScoreDenoiser,
    Sequential,
)
from pretzel.sampling.samplers import Work
from pretzel.testing.builtin_parts import learned_denoiser


class ClipsTheWeight(LinearGuidance):
    """Safe up to the weights that one usually tries."""

    def mix(self, conditional, null, weight):
        weight = weight.clamp(max=2) if isinstance(weight, torch.Tensor) else min(weight, 2)
        return super().mix(conditional, null, weight)


class ItsOwnWeight(GaussianMixing):
    """Takes its own weight for that of the positions, which annealing has lowered."""

    def mix(self, conditional, null, weight):
        return super().mix(conditional, null, min(self.weight, 1) * torch.as_tensor(weight).mean())


class OneRatioForAllChannels(GaussianMixing):
    def mix(self, conditional, null, weight):
        ratio = (conditional.sigma / null.sigma).mean(dim=-1, keepdim=True)
        return super().mix(conditional, replace(null, sigma=conditional.sigma / ratio), weight)


class RemembersTheNarrowest(LinearGuidance):
    """Never wider than any mixture before it."""

    narrowest = float("inf")

    def mix(self, conditional, null, weight):
        mixed = super().mix(conditional, null, weight)
        self.narrowest = min(self.narrowest, float(mixed.sigma.max()))
        return replace(mixed, sigma=mixed.sigma.clamp(max=self.narrowest))


class AnnealsOverChunks(LinearGuidance):
    """Rises over the positions that are asked for, not over the scan."""

    def weights(self, start, stop, num_positions):
        return super().weights(0, stop - start, stop - start)


class GuidesByContextAlone(AttentionTemperature):
    """Forgets that a temperature is something to guide away from."""

    def has_null_branch(self, has_null_context):
        return self.weight != 0 and has_null_context


class ForgetsTheSquare(ScoreDenoiser):
    def __call__(self, x, sigma, log_prob):
        return x + (super().__call__(x, sigma, log_prob) - x) / max(sigma, 1e-6)


class ScoreOfTheMean(ScoreDenoiser):
    """One image: right. A batch: the score divided by its size."""

    def __call__(self, x, sigma, log_prob):
        return super().__call__(x, sigma, lambda point: log_prob(point) / len(point))


class DrawsNoise(ScoreDenoiser):
    """A Langevin step too many, and small."""

    def __call__(self, x, sigma, log_prob):
        return super().__call__(x, sigma, log_prob) + 1e-12 * sigma * torch.randn_like(x)


class LearnsTheNoised(LearnedDenoiser):
    def loss(self, noised, clean, sigma):
        return super().loss(noised, 2 * noised - clean, sigma)


class CentresByWhatItSaw(LearnedDenoiser):
    """Keeps a running mean that is in no state dict."""

    mean = 0.0

    def forward(self, x, sigma, log_prob):
        self.mean = 0.9 * self.mean + 0.1 * float(x.mean())
        return super().forward(x, sigma, log_prob) + 1e-3 * sigma * self.mean


class SeedsItself(Sequential):
    """The same images whenever it is asked, it hopes."""

    def solve(self, inversion, block):
        torch.manual_seed(0)
        return super().solve(inversion, block)


class StartsFromTheLast(Jacobi):
    """Begins with the solution of the same size that it found before."""

    last = None

    def solve(self, inversion, block):
        n = inversion.num_positions
        if block == 0 and self.last is not None and self.last.shape == inversion.branches.x.shape:
            inversion.branches.write(0, n, self.last)
        work = super().solve(inversion, block)
        self.last = inversion.branches.x.clone() if block == 0 else self.last
        return work


class TiresAfterThreeChunks(Jacobi):
    def _chunk(self, inversion, start, stop):
        tired = start >= 3 * self.block_size and stop - start == self.block_size > 2
        limit = 1 if tired else self.max_iterations
        usual = Jacobi(self.block_size, self.tolerance, limit)
        return usual._chunk(inversion, start, stop)


class DropsTheOddEnd(Jacobi):
    """Whole chunks alone; the rest keeps its noise."""

    def iterate(self, inversion, size):
        work, n = Work(), inversion.num_positions
        for start in range(0, n - n % size, size):
            work += self._chunk(inversion, start, start + size)
        for index in range(n - n % size, n - 1):
            inversion.step(index)
        return work


class LeavesTheLastProvisional(Jacobi):
    """Of one map the samples are right; a conversation would go on without the last positions."""

    def solve(self, inversion, block):
        work = super().solve(inversion, block)
        n, size = inversion.num_positions, self.block_size
        inversion.rewind((n - 1) // size * size, n)
        return work


class CountsCommitsAsProvisional(Jacobi):
    def solve(self, inversion, block):
        work = super().solve(inversion, block)
        return replace(work, provisional=work.evaluations)


class StateByNumber(GaussSeidelJacobi):
    """Its keys are numbers, which no JSON keeps."""

    def state(self):
        return {"schedule": dict(self.schedule)}


def jacobi(kind=Jacobi, size=3):
    return partial(kind, block_size=size, tolerance=0.0)


MIXING, LINEAR = partial(GaussianMixing, 2.5), partial(LinearGuidance, 2.5)
TEMPERED = LinearGuidance(2.0)
TRAINED = partial(learned_denoiser, (4,))
SCHEDULED = {"tolerance": 1e-26, "num_samples": 2}


def learned(kind):
    def build():
        denoiser = kind(width=8, num_blocks=1)
        denoiser.fit_to(5, (4,))
        return denoiser

    return build


BROKEN = [
    Broken(partial(ClipsTheWeight, 2.5), LINEAR, "guidance.strength_has_no_limit"),
    Broken(partial(ItsOwnWeight, 2.5), MIXING, "guidance.each_position_has_its_weight"),
    Broken(partial(OneRatioForAllChannels, 2.5), MIXING, "guidance.elements_are_independent"),
    Broken(partial(RemembersTheNarrowest, 2.5), LINEAR, "guidance.elements_are_independent"),
    Broken(
        partial(AnnealsOverChunks, 2.5, annealed=True),
        partial(LinearGuidance, 2.5, annealed=True),
        "guidance.annealing_grows_from_nothing",
    ),
    Broken(
        partial(GuidesByContextAlone, TEMPERED, 1.3),
        partial(AttentionTemperature, TEMPERED, 1.3),
        "guidance.null_branch_is_there_when_needed",
    ),
    Broken(ForgetsTheSquare, ScoreDenoiser, "denoisers.density_gives_the_posterior_mean"),
    Broken(ScoreOfTheMean, ScoreDenoiser, "denoisers.density_gives_the_posterior_mean"),
    Broken(DrawsNoise, ScoreDenoiser, "denoisers.calls_leave_no_state"),
    Broken(learned(LearnsTheNoised), TRAINED, "denoisers.loss_teaches_the_posterior_mean"),
    Broken(learned(CentresByWhatItSaw), TRAINED, "denoisers.calls_leave_no_state"),
    Broken(SeedsItself, Sequential, "samplers.solving_leaves_no_trace"),
    Broken(
        partial(StartsFromTheLast, tolerance=1e-26),
        partial(Jacobi, tolerance=1e-26),
        "samplers.solving_leaves_no_trace",
    ),
    Broken(jacobi(TiresAfterThreeChunks), jacobi(), "samplers.samples_equal_sequential_ones"),
    Broken(jacobi(DropsTheOddEnd, 2), jacobi(size=2), "samplers.samples_equal_sequential_ones"),
    Broken(jacobi(LeavesTheLastProvisional), jacobi(), "samplers.positions_are_committed_once"),
    Broken(jacobi(CountsCommitsAsProvisional), jacobi(), "samplers.positions_are_committed_once"),
    Broken(
        partial(StateByNumber, **SCHEDULED),
        partial(GaussSeidelJacobi, **SCHEDULED),
        "samplers.state_carries_what_was_learned",
    ),
]
