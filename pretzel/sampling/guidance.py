"""Guidance: how conditional and null predictions are mixed while sampling."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch

from pretzel.errors import UserError
from pretzel.typing import Float, Tensor

Weight = float | Tensor


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """The conditional N(mu, sigma^2) of some positions."""

    mu: Float[Tensor, "*b d"]
    sigma: Float[Tensor, "*b d"]


class Guidance(ABC):
    """Mixes two Gaussian conditionals of the same positions.

    Attributes:
        weight: Strength; 0 leaves the conditional prediction alone and needs no null branch.
        annealed: Whether the strength grows linearly over the positions of the scan, from 0 at
            the first to ``weight`` at the last, or is the same for all.
        temperature: Divides the attention logits of the null branch.
        keeps_context: Whether the null branch is given the context as well.
    """

    evaluation_only: ClassVar[bool] = True
    weight: float
    annealed: bool = False
    temperature: float = 1.0
    keeps_context: bool = False

    @abstractmethod
    def mix(self, conditional: Gaussian, null: Gaussian, weight: Weight) -> Gaussian:
        """Return what is sampled from.

        Args:
            conditional: N(mu_c, sigma_c^2), given the context.
            null: N(mu_u, sigma_u^2), of the null branch.
            weight: Strength at these positions, a number or one for each position [k, 1].
        """

    def has_null_branch(self, has_null_context: bool) -> bool:
        """Return whether there is anything to guide away from, a null context or a temperature."""
        return self.weight != 0 and (has_null_context or self.temperature != 1)

    def weights(self, start: int, stop: int, num_positions: int) -> Float[Tensor, "k 1"]:
        """Return the strength at positions start .. stop - 1 of a scan of ``num_positions``."""
        place = torch.ones(stop - start, dtype=torch.float64)
        if self.annealed:
            place = torch.arange(start, stop, dtype=torch.float64) / max(num_positions - 1, 1)
        return self.weight * place[:, None]


class NoGuidance(Guidance):
    """The conditional prediction alone."""

    weight = 0.0

    def mix(self, conditional: Gaussian, null: Gaussian, weight: Weight) -> Gaussian:
        """Return the conditional."""
        return conditional


class LinearGuidance(Guidance):
    """Linear extrapolation of mean and log-scale (TarFlow, arXiv 2412.06329).

    mu = (1 + w) mu_c - w mu_u; log sigma = (1 + w) log sigma_c - w log sigma_u.

    Args:
        weight: Strength w, 0 or positive.
        annealed: Whether w grows linearly over the positions.
        mean: Whether the mean is guided.
        scale: Whether the scale is.

    Raises:
        UserError: If ``weight`` is negative.
    """

    def __init__(
        self, weight: float, annealed: bool = False, mean: bool = True, scale: bool = True
    ) -> None:
        self.weight = _checked(weight)
        self.annealed = annealed
        self.mean = mean
        self.scale = scale

    def mix(self, conditional: Gaussian, null: Gaussian, weight: Weight) -> Gaussian:
        """Return the extrapolation."""
        mu, sigma = conditional.mu, conditional.sigma
        if self.mean:
            mu = mu + weight * (mu - null.mu)
        if self.scale:
            sigma = sigma * (sigma / null.sigma) ** weight
        return Gaussian(mu=mu, sigma=sigma)


class GaussianMixing(Guidance):
    """Gaussian mixing (STARFlow, arXiv 2506.06276).

    r = min(sigma_c^2 / sigma_u^2, 1); mu = ((1 + w) mu_c - w r mu_u) / (1 + w - w r);
    sigma = sigma_c / sqrt(1 + w - w r).

    Args:
        weight: Strength w, 0 or positive.
        annealed: Whether w grows linearly over the positions.

    Raises:
        UserError: If ``weight`` is negative.
    """

    def __init__(self, weight: float, annealed: bool = False) -> None:
        self.weight = _checked(weight)
        self.annealed = annealed

    def mix(self, conditional: Gaussian, null: Gaussian, weight: Weight) -> Gaussian:
        """Return the mixture's mean and standard deviation."""
        w = weight
        # Above 1 the precision 1 + w - w r would shrink, and vanish at r = 1 + 1/w.
        r = (conditional.sigma / null.sigma).square().clamp(max=1.0)
        total = 1 + w - w * r
        mu = ((1 + w) * conditional.mu - w * r * null.mu) / total
        return Gaussian(mu=mu, sigma=conditional.sigma / total.sqrt())


class AttentionTemperature(Guidance):
    """Guidance away from the same model with its attention flattened or sharpened (TarFlow).

    The null branch is the model with attention logits divided by ``temperature``, so that a model
    without any context can be guided as well.

    Args:
        guidance: How the two branches are mixed.
        temperature: Of the null branch's attention; positive.
        keeps_context: Whether the null branch is given the context, so that temperature alone
            separates the branches. Attention is tempered from begin-of-image on; of a model that
            reads text together with the image, in the text before as well.

    Raises:
        UserError: If ``temperature`` is not positive.
    """

    def __init__(self, guidance: Guidance, temperature: float, keeps_context: bool = False) -> None:
        if not 0 < temperature < math.inf:
            raise UserError(f"temperature must be positive, got {temperature}")
        self.guidance = guidance
        self.weight = guidance.weight
        self.annealed = guidance.annealed
        self.temperature = temperature
        self.keeps_context = keeps_context

    def mix(self, conditional: Gaussian, null: Gaussian, weight: Weight) -> Gaussian:
        """Mix as the given guidance does."""
        return self.guidance.mix(conditional, null, weight)


def _checked(weight: float) -> float:
    if not 0 <= weight < math.inf:
        raise UserError(f"weight must be 0 or positive, got {weight}")
    return weight
