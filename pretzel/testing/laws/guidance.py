"""The laws of guidance."""

from dataclasses import replace
from itertools import product

import torch

from pretzel.sampling.guidance import Gaussian, Guidance
from pretzel.testing.deviation import Deviation, check, require, unmeasured, within, worst, worst_of
from pretzel.testing.law_case import FP64, Case, normal


def sample() -> tuple[Gaussian, Gaussian]:
    """Return the conditional and the null branch's Gaussian, float64."""
    return (
        Gaussian(mu=normal(4, 5, key="mu_c"), sigma=normal(4, 5, key="sigma_c").exp()),
        Gaussian(mu=normal(4, 5, key="mu_u"), sigma=normal(4, 5, key="sigma_u").exp()),
    )


def equal(actual: Gaussian, expected: Gaussian, tolerance: float = FP64) -> Deviation:
    """Compare means and standard deviations."""
    return worst_of(
        within(actual.mu, expected.mu, tolerance, "mu"),
        within(actual.sigma, expected.sigma, tolerance, "sigma"),
    )


def weight_zero_is_the_conditional(case: Case[Guidance]) -> Deviation:
    """With weight 0 the mixture is not the conditional prediction."""
    conditional, null = sample()
    return equal(case.build().mix(conditional, null, 0.0), conditional)


def equal_branches_are_left_alone(case: Case[Guidance]) -> Deviation:
    """Where both branches agree the mixture differs from them."""
    conditional, _ = sample()
    return equal(case.build().mix(conditional, conditional, 1.5), conditional)


def mean_moves_away_from_the_null_branch(case: Case[Guidance]) -> Deviation:
    """The mean moves towards the null branch's, or a weight above 0 changes nothing at all."""
    guidance = case.build()
    conditional, null = sample()
    mixed = guidance.mix(conditional, replace(null, sigma=conditional.sigma), 1.5)
    away = (mixed.mu - conditional.mu) * (conditional.mu - null.mu).sign()
    if guidance.weight != 0:  # of the scale alone there may be guidance too
        scale = guidance.mix(conditional, null, 1.5).sigma
        moved = bool(away.any() or (scale != conditional.sigma).any())
        require(moved, "with weight 1.5 the mixture is the conditional prediction")
    return check(worst((-away).clamp(min=0), FP64, "mean towards the null branch's"))


def scale_stays_positive(case: Case[Guidance]) -> Deviation:
    """The mixture has a standard deviation that is not positive, or values that are not finite."""
    guidance = case.build()
    conditional, null = sample()
    for stretch in (1e-3, 1.0, 1e3):
        mixed = guidance.mix(replace(conditional, sigma=conditional.sigma * stretch), null, 1.5)
        least = float(mixed.sigma.min())
        require(bool((mixed.sigma > 0).all()), f"sigma must be positive, got {least:.3g}")
        finite = bool(mixed.mu.isfinite().all() and mixed.sigma.isfinite().all())
        require(finite, f"mu and sigma must be finite at sigma_c / sigma_u of {stretch:g}")
    return unmeasured("sigma > 0")


def inputs_are_not_modified(case: Case[Guidance]) -> Deviation:
    """The guidance writes into the tensors it is given."""
    arguments, before = sample(), sample()
    case.build().mix(*arguments, 1.5)
    return worst_of(*(equal(a, b, 0.0) for a, b in zip(arguments, before, strict=True)))


def elements_are_independent(case: Case[Guidance]) -> Deviation:
    """One element's mixture depends on other elements."""
    guidance, (conditional, null) = case.build(), sample()
    alone = Gaussian(mu=torch.empty_like(conditional.mu), sigma=torch.empty_like(conditional.sigma))
    for i, j in product(range(4), range(5)):
        at = (slice(i, i + 1), slice(j, j + 1))
        mixed = guidance.mix(_element(conditional, at), _element(null, at), 1.5)
        alone.mu[at], alone.sigma[at] = mixed.mu, mixed.sigma
    return equal(guidance.mix(conditional, null, 1.5), alone)


def _element(gaussian: Gaussian, at: tuple[slice, slice]) -> Gaussian:
    return Gaussian(mu=gaussian.mu[at], sigma=gaussian.sigma[at])


def annealing_grows_from_nothing(case: Case[Guidance]) -> Deviation:
    """The strength over the positions is not the weight, or annealed not a rise from 0 to it."""
    guidance = case.build()
    weights = guidance.weights(0, 5, 5)
    require(tuple(weights.shape) == (5, 1), f"weights(0, 5, 5) have shape {tuple(weights.shape)}")
    expected = torch.full((5, 1), float(guidance.weight), dtype=torch.float64)
    if guidance.annealed:
        expected = expected * torch.arange(5)[:, None] / 4
    parts = torch.cat([guidance.weights(0, 2, 5), guidance.weights(2, 5, 5)])
    return worst_of(
        within(weights.double(), expected, FP64, "weights"),
        within(parts.double(), expected, FP64, "weights of parts of the scan"),
    )
