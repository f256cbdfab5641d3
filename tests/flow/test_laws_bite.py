"""Deliberately broken parts: each is caught by the law that is about its mistake."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from pretzel.flow import (
    AFBlock,
    AffineSoftplus,
    AffineTransform,
    CausalTransformer,
    Flip,
    Flowed,
    Permutation,
)
from pretzel.sampling.denoisers import Denoiser
from pretzel.sampling.guidance import GaussianMixing, LinearGuidance
from pretzel.sampling.samplers import Jacobi, Sequential, Work
from pretzel.testing import Case, LawBroken, laws_of, run_laws
from pretzel.testing.suite import try_law

TRANSFORMER = partial(CausalTransformer, width=16, head_dim=8)


class WrongSign(AffineSoftplus):
    def forward(self, x, params):
        z, logdet = super().forward(x, params)
        return z, -logdet


class NegativeScale(AffineTransform):
    def location_and_scale(self, params):
        a, mu = params.chunk(2, dim=-1)
        return mu, 1 + 3 * a

    def forward(self, x, params):
        mu, sigma = self.location_and_scale(params)
        return (x - mu) / sigma, -sigma.abs().log()


class NoIdentity(AffineTransform):
    def location_and_scale(self, params):
        a, mu = params.chunk(2, dim=-1)
        return mu, nn.functional.softplus(a)


class MissingShift(AFBlock):
    def condition(self, x, context=None):
        h = self.input(x) + self.positions.embed(self.coordinates)
        return self.head(self.conditioner(h, self.positions.rotation(self.coordinates, x.dtype)))


class LeaksTheFuture(AFBlock):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.leak = nn.Parameter(torch.zeros(()))

    def condition(self, x, context=None):
        return super().condition(x) + self.leak * x.mean()


class PermutationNotUndone(AFBlock):
    def forward(self, x, context=None):
        flowed = super().forward(x)
        return Flowed(z=flowed.z[:, self.order], logdet=flowed.logdet)

    def inverse(self, z, context=None):
        return super().inverse(z[:, self.rank])


class CacheOffByOne(AFBlock):
    def step(self, previous, index, cache):
        return super().step(previous, max(index - 1, 0), cache)


class CacheKept(AFBlock):
    def new_cache(self, batch_size, context=None, temperature=None):
        if "kept" not in vars(self):
            self.kept = super().new_cache(batch_size)
        return self.kept


class EvaluatesOneTooEarly(AFBlock):
    def evaluate(self, x, start, stop, cache):
        return super().evaluate(x.roll(1, dims=1), start, stop, cache)


class ProvisionalStays(AFBlock):
    def rewind(self, start, stop, cache):
        pass


class TakesNaN(AFBlock):
    def check_finite(self, name, value):
        pass


class WritesIntoInput(AFBlock):
    def forward(self, x, context=None):
        flowed = super().forward(x)
        x.zero_()
        return flowed


class UnusedParameter(AFBlock):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.extra = nn.Linear(2, 2)


class NotSaved(AFBlock):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.constant = torch.randn(self.num_params)

    def condition(self, x, context=None):
        return super().condition(x) + self.constant

    def step(self, previous, index, cache):
        return super().step(previous, index, cache) + self.constant


class RoundsToFloat32(AFBlock):
    def condition(self, x, context=None):
        return super().condition(x).float().to(x.dtype)


class MixesRows(AFBlock):
    def condition(self, x, context=None):
        before = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)
        return super().condition(x) + before.mean(0).repeat(1, 2)


class MeanLogdet(AFBlock):
    def forward(self, x, context=None):
        flowed = super().forward(x)
        return Flowed(z=flowed.z, logdet=flowed.logdet / x[0].numel())


class TakesAnyShape(AFBlock):
    def forward(self, x, context=None):
        return super().forward(x[:, : len(self.order), : self.channels])


class ApproximateInverse(AFBlock):
    def inverse(self, z, context=None):
        ordered = z[:, self.order]
        x = ordered
        for _ in range(2):
            x = self.transform.inverse(ordered, self.condition(x))
        return x[:, self.rank]


class DividesByZero(AFBlock):
    def condition(self, x, context=None):
        return super().condition(x) / 0.0


def block(kind=AFBlock, transform=AffineSoftplus, conditioner=TRANSFORMER):
    return partial(kind, 3, (2, 3), 1, Flip(), transform=transform(), conditioner=conditioner)


class VisitsTwice(Permutation):
    def order(self, grid):
        return Flip().order(grid).clamp(min=1)


class FreshRandom(Permutation):
    def order(self, grid):
        return torch.randperm(len(Flip().order(grid)))


class Unnormalised(GaussianMixing):
    def mix(self, conditional, null, weight):
        mixed = super().mix(conditional, null, weight)
        return replace(mixed, mu=mixed.mu * (1 + self.weight))


class TowardsTheNull(LinearGuidance):
    def mix(self, conditional, null, weight):
        return super().mix(conditional, null, -weight)


class NeverAnneals(LinearGuidance):
    def weights(self, start, stop, num_positions):
        return torch.full((stop - start, 1), self.weight)


class StopsTooSoon(Jacobi):
    def solve(self, inversion, block):
        return Jacobi(max_iterations=2).solve(inversion, block)


class CountsNothing(Sequential):
    def solve(self, inversion, block):
        super().solve(inversion, block)
        return Work(evaluations=1, provisional=0, positions=1)


class SeesTheNext(CausalTransformer):
    def forward(self, h, rotation=None, mask=None, cache=None, modulation=None):
        y = super().forward(h, rotation, mask, cache, modulation)
        return y if cache is not None else y + y.roll(-1, dims=1)


class GradientInInferenceMode(Denoiser):
    def __call__(self, x, sigma, log_prob):
        point = x.clone().requires_grad_()
        (score,) = torch.autograd.grad(log_prob(point).sum(), point)
        return x + sigma**2 * score


BROKEN = [
    (block(transform=WrongSign), "blocks.logdet_is_that_of_the_jacobian"),
    (WrongSign, "transforms.logdet_is_that_of_the_derivative"),
    (NegativeScale, "transforms.affine_is_standardisation"),
    (block(transform=NegativeScale), "autoregressive.jacobian_is_triangular"),
    (NoIdentity, "transforms.zero_parameters_are_the_identity"),
    (block(MissingShift), "autoregressive.conditioner_is_strictly_causal"),
    (block(LeaksTheFuture), "autoregressive.conditioner_is_strictly_causal"),
    (block(LeaksTheFuture), "autoregressive.jacobian_is_triangular"),
    (block(PermutationNotUndone), "autoregressive.jacobian_is_triangular"),
    (block(CacheOffByOne), "autoregressive.cached_steps_equal_condition"),
    (block(CacheOffByOne), "blocks.inverse_undoes_forward"),
    (block(CacheKept), "blocks.inverse_undoes_forward"),
    (block(WritesIntoInput), "blocks.inputs_are_not_modified"),
    (block(UnusedParameter), "gradients.every_parameter_is_trained"),
    (block(NotSaved), "state.state_dict_holds_everything"),
    (block(RoundsToFloat32), "autoregressive.cached_steps_equal_condition"),
    (block(MixesRows), "blocks.rows_are_independent"),
    (block(MeanLogdet), "blocks.logdet_is_that_of_the_jacobian"),
    (block(TakesAnyShape), "blocks.wrong_shapes_are_refused"),
    (block(ApproximateInverse), "autoregressive.fixed_point_iteration_inverts"),
    (block(DividesByZero), "blocks.inverse_undoes_forward"),
    (block(EvaluatesOneTooEarly), "autoregressive.evaluations_behind_the_cache_equal_condition"),
    (block(ProvisionalStays), "autoregressive.evaluations_behind_the_cache_equal_condition"),
    (block(TakesNaN), "blocks.what_is_not_finite_is_refused"),
    (
        block(conditioner=partial(SeesTheNext, width=16, head_dim=8)),
        "autoregressive.conditioner_is_strictly_causal",
    ),
    (StopsTooSoon, "samplers.samples_equal_sequential_ones"),
    (CountsNothing, "samplers.work_is_reported"),
    (partial(NeverAnneals, 2.0, annealed=True), "guidance.annealing_grows_from_nothing"),
    (VisitsTwice, "permutations.every_position_is_visited_once"),
    (FreshRandom, "permutations.order_is_fixed"),
    (partial(Unnormalised, 1.0), "guidance.equal_branches_are_left_alone"),
    (partial(TowardsTheNull, 1.0), "guidance.mean_moves_away_from_the_null_branch"),
    (GradientInInferenceMode, "denoisers.inference_mode_changes_nothing"),
]


def outcome(factory, name, *, perturbed):
    (law,) = [law for law in laws_of(factory()) if law.name == name]
    return try_law(law, Case(factory=factory, perturbed=perturbed))


@pytest.mark.parametrize(("factory", "law"), BROKEN)
def test_the_right_law_catches(factory, law):
    actual = [outcome(factory, law, perturbed=perturbed) for perturbed in (False, True)]
    failed = [o for o in actual if not o.passed]
    assert failed
    # A law judges, unless the mistake itself is a crash
    crashes = isinstance(
        factory(), CacheKept | DividesByZero | GradientInInferenceMode | ProvisionalStays
    )
    assert crashes or all(isinstance(o.cause, LawBroken) for o in failed)


def test_at_initialisation_a_leak_is_invisible():
    for name in ("conditioner_is_strictly_causal", "jacobian_is_triangular"):
        law = f"autoregressive.{name}"
        assert outcome(block(LeaksTheFuture), law, perturbed=False).passed
        assert not outcome(block(LeaksTheFuture), law, perturbed=True).passed


def test_run_laws_reports_law_meaning_error_and_place():
    with pytest.raises(AssertionError) as caught:
        run_laws(WrongSign)
    report = str(caught.value)
    assert report.startswith("1 of ")
    assert "transforms.logdet_is_that_of_the_derivative [initial]: FAIL" in report
    assert "log-determinant is not log dz/dx" in report
    assert "worst error" in report
    assert " at [" in report


def test_parts_without_laws_are_refused():
    with pytest.raises(ValueError, match="laws exist for FlowBlock"):
        run_laws(lambda: nn.Linear(2, 2))


def test_gradient_law_names_the_parameter():
    o = outcome(block(UnusedParameter), "gradients.every_parameter_is_trained", perturbed=True)
    assert "extra.weight is unused" in o.detail
