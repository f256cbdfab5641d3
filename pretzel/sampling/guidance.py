"""Guidance: how conditional and unconditional predictions are mixed while sampling."""

from abc import ABC, abstractmethod

from pretzel.errors import UserError
from pretzel.typing import Float, Tensor


class Guidance(ABC):
    """Mixes two Gaussian conditionals N(mu, sigma^2) of one position.

    Attributes:
        weight: Strength; 0 leaves the conditional prediction alone and needs no null branch.
    """

    weight: float

    @abstractmethod
    def mix(
        self,
        mu_c: Float[Tensor, "*b d"],
        sigma_c: Float[Tensor, "*b d"],
        mu_u: Float[Tensor, "*b d"],
        sigma_u: Float[Tensor, "*b d"],
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b d"]]:
        """Return mu and sigma to sample from.

        Args:
            mu_c: Conditional mean.
            sigma_c: Conditional standard deviation.
            mu_u: Unconditional mean.
            sigma_u: Unconditional standard deviation.
        """


class NoGuidance(Guidance):
    """The conditional prediction alone."""

    weight = 0.0

    def mix(
        self,
        mu_c: Float[Tensor, "*b d"],
        sigma_c: Float[Tensor, "*b d"],
        mu_u: Float[Tensor, "*b d"],
        sigma_u: Float[Tensor, "*b d"],
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b d"]]:
        """Return the conditional."""
        return mu_c, sigma_c


class GaussianMixing(Guidance):
    """Gaussian mixing (STARFlow, arXiv 2506.06276).

    r = min(sigma_c^2 / sigma_u^2, 1); mu = ((1 + w) mu_c - w r mu_u) / (1 + w - w r);
    sigma = sigma_c / sqrt(1 + w - w r).

    Args:
        weight: Strength w, 0 or positive.

    Raises:
        UserError: If ``weight`` is negative.
    """

    def __init__(self, weight: float) -> None:
        if weight < 0:
            raise UserError(f"weight must be 0 or positive, got {weight}")
        self.weight = weight

    def mix(
        self,
        mu_c: Float[Tensor, "*b d"],
        sigma_c: Float[Tensor, "*b d"],
        mu_u: Float[Tensor, "*b d"],
        sigma_u: Float[Tensor, "*b d"],
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b d"]]:
        """Return the mixture's mean and standard deviation."""
        w = self.weight
        r = (sigma_c / sigma_u).square().clamp(max=1.0)
        total = 1 + w - w * r
        return ((1 + w) * mu_c - w * r * mu_u) / total, sigma_c / total.sqrt()
