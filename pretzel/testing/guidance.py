"""The laws of guidance."""

import torch

from pretzel.sampling.guidance import Guidance
from pretzel.testing.case import FP64, Case, normal
from pretzel.testing.deviation import Deviation, require, within, worst_of
from pretzel.typing import Tensor


def sample() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return conditional and unconditional means and standard deviations, float64."""
    mu_c, mu_u = normal(4, 5, key="mu_c"), normal(4, 5, key="mu_u")
    return mu_c, normal(4, 5, key="sigma_c").exp(), mu_u, normal(4, 5, key="sigma_u").exp()


def weight_zero_is_the_conditional(case: Case[Guidance]) -> Deviation:
    """With weight 0 the mixture is not the conditional prediction."""
    given = sample()
    mu, sigma = case.build().mix(*given, 0.0)
    return worst_of([within(mu, given[0], FP64, "mu"), within(sigma, given[1], FP64, "sigma")])


def equal_branches_are_left_alone(case: Case[Guidance]) -> Deviation:
    """Where both branches agree the mixture differs from them."""
    mu_c, sigma_c, _, _ = sample()
    mu, sigma = case.build().mix(mu_c, sigma_c, mu_c, sigma_c, weight=1.5)
    return worst_of([within(mu, mu_c, FP64, "mu"), within(sigma, sigma_c, FP64, "sigma")])


def scale_stays_positive(case: Case[Guidance]) -> Deviation:
    """The mixture has a standard deviation that is not positive, or values that are not finite."""
    guidance = case.build()
    mu_c, sigma_c, mu_u, sigma_u = sample()
    for stretch in (1e-3, 1.0, 1e3):
        mu, sigma = guidance.mix(mu_c, sigma_c * stretch, mu_u, sigma_u, weight=1.5)
        require(bool((sigma > 0).all()), f"sigma must be positive, got {float(sigma.min()):.3g}")
        finite = bool(mu.isfinite().all() and sigma.isfinite().all())
        require(finite, f"mu and sigma must be finite at sigma_c / sigma_u of {stretch:g}")
    return Deviation(what="sigma > 0", error=0.0, tolerance=0.0)


def inputs_are_not_modified(case: Case[Guidance]) -> Deviation:
    """The guidance writes into the tensors it is given."""
    given, before = sample(), sample()
    case.build().mix(*given, 1.5)
    names = ("mu_c", "sigma_c", "mu_u", "sigma_u")
    return worst_of(
        [within(g, b, 0.0, name) for g, b, name in zip(given, before, names, strict=True)]
    )


def elements_are_independent(case: Case[Guidance]) -> Deviation:
    """One element's mixture depends on other elements."""
    guidance, given = case.build(), sample()
    mu, sigma = guidance.mix(*given, 1.5)
    mu_c, sigma_c, mu_u, sigma_u = given
    alone = [
        guidance.mix(mu_c[at], sigma_c[at], mu_u[at], sigma_u[at], 1.5)
        for at in ((slice(i, i + 1), slice(j, j + 1)) for i in range(4) for j in range(5))
    ]
    return worst_of(
        [
            within(torch.cat([m.flatten() for m, _ in alone]).view(4, 5), mu, FP64, "mu"),
            within(torch.cat([s.flatten() for _, s in alone]).view(4, 5), sigma, FP64, "sigma"),
        ]
    )


def annealing_grows_from_nothing(case: Case[Guidance]) -> Deviation:
    """The strength over the positions is not the weight, or annealed not a rise from 0 to it."""
    guidance = case.build()
    whole = guidance.weights(0, 5, 5)
    require(tuple(whole.shape) == (5, 1), f"weights(0, 5, 5) have shape {tuple(whole.shape)}")
    expected = torch.full((5, 1), float(guidance.weight), dtype=torch.float64)
    if guidance.annealed:
        expected = expected * torch.arange(5)[:, None] / 4
    parts = torch.cat([guidance.weights(0, 2, 5), guidance.weights(2, 5, 5)])
    return worst_of(
        [
            within(whole.double(), expected, FP64, "weights"),
            within(parts.double(), expected, FP64, "weights of parts of the scan"),
        ]
    )
