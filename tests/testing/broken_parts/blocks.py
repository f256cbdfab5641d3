"""Autoregressive blocks that are wrong in one place: caches, modes, state, precision, gradients."""

import copy
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from broken_parts import Broken
from pretzel.flow import AFBlock, AffineSoftplus, CausalTransformer, Flip, Flowed
from pretzel.testing.tiny_model import transformer

SMALL = transformer(width=16, head_dim=8)


def block(kind=AFBlock, conditioner=SMALL, channels=3, grid=(2, 3), num_layers=1, order=Flip):
    return partial(
        kind, channels, grid, num_layers, order(),
        transform=AffineSoftplus(), conditioner=conditioner,
    )  # fmt: skip


LONG = {"channels": 1, "grid": (3, 23)}


class SeesItselfInEval(AFBlock):
    def condition(self, x, context=None):
        params = super().condition(x)
        return params if self.training else params + 0.1 * x.mean(-1, keepdim=True)


class SeesTheFutureInEval(AFBlock):
    def condition(self, x, context=None):
        params = super().condition(x)
        return params if self.training else params + 0.1 * x.mean()


class SeesTheFutureWithoutGradient(AFBlock):
    """Normalises by the scale of the whole image, detached as statistics usually are."""

    def condition(self, x, context=None):
        return super().condition(x) / x.detach().std(dim=(1, 2), keepdim=True)


class SeesOutliersAhead(AFBlock):
    def condition(self, x, context=None):
        return super().condition(x) * torch.where(x.abs().amax() > 20, 0.9, 1.0)


class BatchStatisticsInEval(AFBlock):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.norm = nn.BatchNorm1d(self.num_params, track_running_stats=False)

    def condition(self, x, context=None):
        params = super().condition(x)
        return params if self.training else self.norm(params.transpose(1, 2)).transpose(1, 2)


class LogdetOfTheFirstRows(AFBlock):
    """Maps four rows at a time, and reports the log-determinants of the first four again."""

    def forward(self, x, context=None):
        chunks = [AFBlock.forward(self, rows) for rows in x.split(4)]
        logdet = chunks[0].logdet.repeat(len(chunks))[: len(x)]
        return Flowed(z=torch.cat([chunk.z for chunk in chunks]), logdet=logdet)


class LogdetOfTraining(AFBlock):
    def forward(self, x, context=None):
        flowed = super().forward(x)
        return flowed if self.training else Flowed(z=flowed.z, logdet=flowed.logdet.detach() * 0.99)


class SumsInHalfPrecision(AFBlock):
    def forward(self, x, context=None):
        z, logdet = self.elementwise(x)
        if x.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu"):
            logdet = logdet.bfloat16()
        return Flowed(
            z=z[:, self.rank],
            logdet=logdet.sum(dim=(1, 2)).to(torch.promote_types(x.dtype, torch.float32)),
        )


class DetachesLogdet(AFBlock):
    def forward(self, x, context=None):
        flowed = super().forward(x)
        return Flowed(z=flowed.z, logdet=flowed.logdet.detach())


class DetachesInputs(AFBlock):
    """Stops the gradient where the conditioner reads: the autograd Jacobian is diagonal then."""

    def condition(self, x, context=None):
        return super().condition(x.detach())


class NoGradientInEval(AFBlock):
    """Saves memory in evaluation mode, where score denoising differentiates."""

    def condition(self, x, context=None):
        with torch.set_grad_enabled(self.training and torch.is_grad_enabled()):
            return super().condition(x)


class ClampsWhatStepsRead(AFBlock):
    def step(self, previous, index, cache):
        previous = previous if previous is None else previous.clamp(max=5)
        return super().step(previous, index, cache)


class ClampsParametersOfSteps(AFBlock):
    def step(self, previous, index, cache):
        return super().step(previous, index, cache).clamp(-3, 3)


class OrderKeptInInverseOfOddLengths(AFBlock):
    def inverse(self, z, context=None):
        x = super().inverse(z)
        return x if x.shape[1] % 2 == 0 else x[:, self.order]


class WindowOfSixteen(AFBlock):
    def step(self, previous, index, cache):
        cache.network.entries[..., : max(index - 16, 0), :] = 0
        return super().step(previous, index, cache)


class ForgetsBeyondSixtyFour(AFBlock):
    """Its buffer has 64 places, of which the last is written again and again."""

    def step(self, previous, index, cache):
        if index >= 64:
            cache.network.rewind(1)
        return super().step(previous, index, cache)


class PlaceBehindTheCache(AFBlock):
    """Rotates a single position as the first one: the offset of the cache is ignored."""

    def _advance(self, h, start, cache):
        if h.shape[1] > 1 or start == 0:
            return super()._advance(h, start, cache)
        first = copy.copy(cache)
        first.rotation = tuple(part[..., :1, :].expand_as(part) for part in cache.rotation)
        first._places = None
        return super()._advance(h, start, first)


class CountsItsCalls(AFBlock):
    """Warms up over a thousand calls, by a number that no checkpoint holds."""

    calls = 0

    def condition(self, x, context=None):
        self.calls += 1
        return super().condition(x) * min(1.0, 0.5 + self.calls / 1000)


class RunningScale(AFBlock):
    """Divides by a running scale of the data, kept in a buffer that is not persistent."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register_buffer("scale", torch.ones(()), persistent=False)

    def forward(self, x, context=None):
        if self.training:
            self.scale.mul_(0.9).add_(0.1 * x.detach().square().mean())
        flowed = super().forward(x)
        volume = x[0].numel() * self.scale.log()
        return Flowed(z=flowed.z / self.scale, logdet=flowed.logdet - volume)

    def inverse(self, z, context=None):
        return super().inverse(z * self.scale)


class RemembersTheFirst(AFBlock):
    """Keeps an embedding on the class, where the next block finds that of another."""

    memory = {}  # noqa: RUF012

    def new_cache(self, batch_size, context=None, temperature=None):
        cache = super().new_cache(batch_size, context, temperature)
        cache.embedding = self.memory.setdefault(self.head.weight.dtype, cache.embedding)
        return cache


class SeedsItsWeights(AFBlock):
    def __init__(self, *args, **kwargs):
        torch.manual_seed(0)
        super().__init__(*args, **kwargs)


class SeedsNumpy(AFBlock):
    def __init__(self, *args, **kwargs):
        import numpy as np

        np.random.seed(len(args))
        super().__init__(*args, **kwargs)


class ForksToSeed(AFBlock):
    """Leaves the random state alone, and has the same weights in every seed all the same."""

    def __init__(self, *args, **kwargs):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            super().__init__(*args, **kwargs)


class SeedsAtRandom(AFBlock):
    """Draws its weights by the clock: no run can be repeated."""

    def __init__(self, *args, **kwargs):
        torch.seed()
        super().__init__(*args, **kwargs)


class SeedsEveryStep(AFBlock):
    def forward(self, x, context=None):
        if self.training:
            torch.manual_seed(1)
        return super().forward(x)


class ZeroTimesZero(AFBlock):
    """A gated correction whose gate and map both start at zero."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.gate = nn.Parameter(torch.zeros(()))
        self.correction = nn.Parameter(torch.zeros(self.num_params))

    def condition(self, x, context=None):
        return super().condition(x) + self.gate * self.correction

    def step(self, previous, index, cache):
        return super().step(previous, index, cache) + self.gate * self.correction


class HalfDead(AFBlock):
    """Has gains for twice as many numbers as there are."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.gain = nn.Parameter(torch.ones(2 * self.num_params))

    def condition(self, x, context=None):
        return super().condition(x) * self.gain[: self.num_params]

    def step(self, previous, index, cache):
        return super().step(previous, index, cache) * self.gain[: self.num_params]


class Dropout(CausalTransformer):
    """A correct network with dropout: the original of the next ones."""

    def run(self, h, *args, **kwargs):
        return super().run(F.dropout(h, 0.2, self.training), *args, **kwargs)


class DropsInEval(CausalTransformer):
    def run(self, h, *args, **kwargs):
        return super().run(F.dropout(h, 0.2), *args, **kwargs)


class OneMaskForAllRows(CausalTransformer):
    def run(self, h, *args, **kwargs):
        mask = F.dropout(torch.ones_like(h[:1]), 0.2, self.training)
        return super().run(h * mask, *args, **kwargs)


class LeaksUnderDropout(CausalTransformer):
    """Looks ahead in training alone, where dropout hides it from comparisons of two calls."""

    def run(self, h, *args, **kwargs):
        h = F.dropout(h, 0.2, self.training)
        h = h + 0.1 * h.mean(1, keepdim=True) if self.training else h
        return super().run(h, *args, **kwargs)


def dropout(kind):
    return block(conditioner=partial(kind, width=16, head_dim=8))


BROKEN = [
    *(
        Broken(block(kind), block(), law)
        for kind, law in [
            (SeesItselfInEval, "autoregressive.conditioner_is_strictly_causal"),
            (SeesTheFutureInEval, "autoregressive.jacobian_is_triangular"),
            (SeesTheFutureWithoutGradient, "autoregressive.later_positions_change_nothing"),
            (SeesOutliersAhead, "autoregressive.later_positions_change_nothing"),
            (BatchStatisticsInEval, "blocks.rows_are_independent"),
            (LogdetOfTheFirstRows, "blocks.rows_are_independent"),
            (LogdetOfTraining, "blocks.logdet_is_that_of_the_jacobian"),
            (SumsInHalfPrecision, "blocks.logdet_is_summed_in_float32"),
            (DetachesLogdet, "gradients.gradients_are_those_of_finite_differences"),
            (DetachesInputs, "gradients.gradients_are_those_of_finite_differences"),
            (NoGradientInEval, "gradients.gradients_are_those_of_finite_differences"),
            (ClampsWhatStepsRead, "autoregressive.cached_steps_equal_condition"),
            (ClampsParametersOfSteps, "autoregressive.extreme_parameters_are_inverted"),
            (PlaceBehindTheCache, "autoregressive.cached_steps_equal_condition"),
            (CountsItsCalls, "state.calls_leave_no_trace"),
            (RunningScale, "state.state_dict_holds_everything"),
            (RemembersTheFirst, "state.blocks_in_a_stack_invert"),
            (SeedsItsWeights, "randomness.building_seeds_nothing"),
            (SeedsNumpy, "randomness.building_seeds_nothing"),
            (ForksToSeed, "randomness.initial_weights_follow_the_seed"),
            (SeedsAtRandom, "randomness.initial_weights_follow_the_seed"),
            (SeedsEveryStep, "state.training_seeds_nothing"),
            (ZeroTimesZero, "gradients.every_parameter_starts_to_move"),
            (HalfDead, "gradients.every_parameter_is_trained"),
        ]
    ),
    Broken(
        block(OrderKeptInInverseOfOddLengths, grid=(3,)),
        block(grid=(3,)),
        "blocks.inverse_undoes_forward",
    ),
    *(
        Broken(block(kind, **LONG), block(**LONG), "autoregressive.cached_steps_equal_condition")
        for kind in (WindowOfSixteen, ForgetsBeyondSixtyFour)
    ),
    *(
        Broken(dropout(kind), dropout(Dropout), law)
        for kind, law in [
            (DropsInEval, "state.calls_leave_no_trace"),
            (OneMaskForAllRows, "gradients.rows_draw_their_own_numbers"),
            (LeaksUnderDropout, "autoregressive.later_positions_change_nothing"),
        ]
    ),
]
