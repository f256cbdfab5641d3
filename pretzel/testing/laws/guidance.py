"""The laws of guidance, given what samplers give it: [b, k, d] and a weight for each position."""

from dataclasses import replace

import torch

from pretzel.sampling.guidance import Gaussian, Guidance
from pretzel.testing.deviation import Deviation, check, require, unmeasured, within, worst, worst_of
from pretzel.testing.law_case import FP32, FP64, Case, normal
from pretzel.typing import Float, Tensor

ROWS, POSITIONS, CHANNELS = 4, 3, 5
SHAPE = (ROWS, POSITIONS, CHANNELS)
STRENGTHS = (0.5, 1.5, 6.0)


def sample() -> tuple[Gaussian, Gaussian]:
    """Return the conditional and the null branch's Gaussian, float64."""
    return (
        Gaussian(mu=normal(*SHAPE, key="mu_c"), sigma=normal(*SHAPE, key="sigma_c").exp()),
        Gaussian(mu=normal(*SHAPE, key="mu_u"), sigma=normal(*SHAPE, key="sigma_u").exp()),
    )


def strengths() -> Float[Tensor, "k 1"]:
    """Return a weight for each position, one of them above 2."""
    return torch.tensor(STRENGTHS, dtype=torch.float64)[:, None]


def equal(actual: Gaussian, expected: Gaussian, tolerance: float = FP64) -> Deviation:
    """Compare means and standard deviations."""
    return worst_of(
        within(actual.mu, expected.mu, tolerance, "mu"),
        within(actual.sigma, expected.sigma, tolerance, "sigma"),
    )


def weight_zero_is_the_conditional(case: Case[Guidance]) -> Deviation:
    """With weight 0 the mixture is not the conditional prediction."""
    guidance, (conditional, null) = case.build(), sample()
    zeros = torch.zeros_like(strengths())
    mixtures = [guidance.mix(conditional, null, weight) for weight in (0.0, zeros)]
    return worst_of(*(equal(mixed, conditional) for mixed in mixtures))


def equal_branches_are_left_alone(case: Case[Guidance]) -> Deviation:
    """Where both branches agree the mixture differs from them."""
    conditional, _ = sample()
    return equal(case.build().mix(conditional, conditional, strengths()), conditional)


def mean_moves_away_from_the_null_branch(case: Case[Guidance]) -> Deviation:
    """The mean moves towards the null branch's, or a weight above 0 changes nothing at all."""
    guidance = case.build()
    conditional, null = sample()
    mixed = guidance.mix(conditional, replace(null, sigma=conditional.sigma), strengths())
    away = (mixed.mu - conditional.mu) * (conditional.mu - null.mu).sign()
    if guidance.weight != 0:  # of the scale alone there may be guidance too
        scale = guidance.mix(conditional, null, strengths()).sigma
        moved = (away != 0) | (scale != conditional.sigma)
        idle = [w for w, some in zip(STRENGTHS, moved.any(dim=(0, 2)), strict=True) if not some]
        require(not idle, f"with weights {idle} the mixture is the conditional prediction")
    return check(worst((-away).clamp(min=0), FP64, "mean towards the null branch's"))


def strength_has_no_limit(case: Case[Guidance]) -> Deviation:
    """Above some weight more weight changes nothing: it is clipped."""
    guidance, (conditional, null) = case.build(), sample()
    weights = (0.5, 1.0, 2.0, 4.0, 8.0)
    values = []
    for weight in weights:
        mixed = guidance.mix(conditional, null, weight)
        values.append(torch.cat([mixed.mu, mixed.sigma], dim=-1))
    depends = values[0] != values[1]
    for weight, value, stronger in zip(weights, values, values[1:], strict=False):
        clipped = depends & (value == stronger)
        what = f"weights {weight:g} and {2 * weight:g} give the same mixture"
        require(not bool(clipped.any()), what)
    return unmeasured("no limit up to weight 8")


def each_position_has_its_weight(case: Case[Guidance]) -> Deviation:
    """A position is not mixed with the weight that is given for it."""
    guidance, (conditional, null) = case.build(), sample()
    together = guidance.mix(conditional, null, strengths())
    alone = [
        guidance.mix(_at(conditional, k), _at(null, k), weight)
        for k, weight in enumerate(STRENGTHS)
    ]
    expected = Gaussian(
        mu=torch.cat([mixed.mu for mixed in alone], dim=1),
        sigma=torch.cat([mixed.sigma for mixed in alone], dim=1),
    )
    return equal(together, expected)


def _at(gaussian: Gaussian, position: int) -> Gaussian:
    here = slice(position, position + 1)
    return Gaussian(mu=gaussian.mu[:, here], sigma=gaussian.sigma[:, here])


def scale_stays_positive(case: Case[Guidance]) -> Deviation:
    """The mixture has a standard deviation that is not positive, or values that are not finite."""
    guidance = case.build()
    conditional, null = sample()
    for stretch in (1e-3, 1.0, 1e3):
        mixed = guidance.mix(
            replace(conditional, sigma=conditional.sigma * stretch), null, strengths()
        )
        least = float(mixed.sigma.min())
        require(bool((mixed.sigma > 0).all()), f"sigma must be positive, got {least:.3g}")
        finite = bool(mixed.mu.isfinite().all() and mixed.sigma.isfinite().all())
        require(finite, f"mu and sigma must be finite at sigma_c / sigma_u of {stretch:g}")
    return unmeasured("sigma > 0")


def inputs_are_not_modified(case: Case[Guidance]) -> Deviation:
    """The guidance writes into the tensors it is given."""
    arguments, before, weight = sample(), sample(), strengths()
    case.build().mix(*arguments, weight)
    results = [equal(a, b, 0.0) for a, b in zip(arguments, before, strict=True)]
    return worst_of(*results, within(weight, strengths(), 0.0, "weight"))


def elements_are_independent(case: Case[Guidance]) -> Deviation:
    """One element's mixture depends on other elements, or on what was mixed before."""
    guidance, (conditional, null) = case.build(), sample()
    whole = guidance.mix(conditional, null, strengths())
    results = []
    for row in range(ROWS):
        for channel in range(CHANNELS):
            at = (slice(row, row + 1), slice(None), slice(channel, channel + 1))
            mixed = guidance.mix(_element(conditional, at), _element(null, at), strengths())
            results.append(equal(mixed, _element(whole, at)))
    return worst_of(*results)


def _element(gaussian: Gaussian, at: tuple[slice, ...]) -> Gaussian:
    return Gaussian(mu=gaussian.mu[at], sigma=gaussian.sigma[at])


def float32_is_close(case: Case[Guidance]) -> Deviation:
    """In float32 the mixture is of another precision, or off by more than 1e-4."""
    guidance, (conditional, null) = case.build(), sample()
    single = [Gaussian(mu=g.mu.float(), sigma=g.sigma.float()) for g in (conditional, null)]
    mixed = guidance.mix(single[0], single[1], strengths().float())
    for name, value in (("mu", mixed.mu), ("sigma", mixed.sigma)):
        require(value.dtype == torch.float32, f"{name} of float32 is {value.dtype}")
    exact = guidance.mix(conditional, null, strengths())
    return equal(Gaussian(mu=mixed.mu.double(), sigma=mixed.sigma.double()), exact, FP32)


def annealing_grows_from_nothing(case: Case[Guidance]) -> Deviation:
    """The strength over the positions is not the weight, or annealed not a rise from 0 to it."""
    guidance = case.build()
    results = []
    for total in (1, 5, 35):
        weights = guidance.weights(0, total, total)
        shape = tuple(weights.shape)
        require(shape == (total, 1), f"weights(0, {total}, {total}) have shape {shape}")
        expected = torch.full((total, 1), float(guidance.weight), dtype=torch.float64)
        if guidance.annealed:
            expected = expected * torch.arange(total)[:, None] / max(total - 1, 1)
        cut = total // 2
        parts = torch.cat([guidance.weights(0, cut, total), guidance.weights(cut, total, total)])
        results += [
            within(weights.double(), expected, FP64, "weights"),
            within(parts.double(), expected, FP64, "weights of parts of the scan"),
        ]
    return worst_of(*results)


def null_branch_is_there_when_needed(case: Case[Guidance]) -> Deviation:
    """A null branch is left out where there is something to guide away from, or run for nothing.

    A weight of 0 guides nowhere. A null context is something to guide away from, and so is the same
    context under another attention temperature.
    """
    guidance = case.build()
    guides = guidance.weight != 0
    for has_null_context in (True, False):
        expected = guides and (has_null_context or guidance.temperature != 1)
        actual = guidance.has_null_branch(has_null_context)
        require(
            actual is expected,
            f"has_null_branch({has_null_context}) must be {expected} with weight "
            f"{guidance.weight:g} and temperature {guidance.temperature:g}, got {actual!r}",
        )
    return unmeasured("null branch")
