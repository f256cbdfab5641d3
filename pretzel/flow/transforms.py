"""Elementwise transforms of one latent position, given the parameters of the conditioner."""

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F

from pretzel.errors import UserError
from pretzel.typing import Float, Tensor


class Transform(ABC):
    """A monotone map of every channel, parameterised from the positions before.

    Attributes:
        params_per_channel: Raw parameters the conditioner gives for each channel. All zero must
            mean the identity, so that a flow starts as one.
    """

    params_per_channel: int

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "*b d"], params: Float[Tensor, "*b p"]
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b d"]]:
        """Return z and log|dz/dx|, both for each channel."""

    @abstractmethod
    def inverse(
        self, z: Float[Tensor, "*b d"], params: Float[Tensor, "*b p"]
    ) -> Float[Tensor, "*b d"]:
        """Return x such that ``forward(x, params)[0] = z``."""


class AffineTransform(Transform, ABC):
    """z = (x - mu) / sigma: the conditionals are Gaussian, so guidance can mix them."""

    params_per_channel = 2

    @abstractmethod
    def location_and_scale(
        self, params: Float[Tensor, "*b p"]
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b d"]]:
        """Return mu and sigma > 0 of raw parameters (scale parameters first, then location)."""

    def forward(
        self, x: Float[Tensor, "*b d"], params: Float[Tensor, "*b p"]
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b d"]]:
        """Standardise x."""
        mu, sigma = self.location_and_scale(params)
        return (x - mu) / sigma, -sigma.log()

    def inverse(
        self, z: Float[Tensor, "*b d"], params: Float[Tensor, "*b p"]
    ) -> Float[Tensor, "*b d"]:
        """Return z sigma + mu."""
        mu, sigma = self.location_and_scale(params)
        return z * sigma + mu


SOFTPLUS_ONE = math.log(math.e - 1)  # softplus(SOFTPLUS_ONE) = 1


class AffineSoftplus(AffineTransform):
    """Affine with sigma = softplus(a + ln(e - 1)), which is 1 at a = 0 (STARFlow).

    Args:
        min_scale: Lower bound of sigma. Noised data never need less than their noise, and a sigma
            that underflows to 0 makes the log-determinant infinite.

    Raises:
        UserError: If ``min_scale`` is negative or not below 1.
    """

    def __init__(self, min_scale: float = 1e-4) -> None:
        if not 0 <= min_scale < 1:
            raise UserError(f"min_scale must be in [0, 1), got {min_scale}")
        self.min_scale = min_scale

    def location_and_scale(
        self, params: Float[Tensor, "*b p"]
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b d"]]:
        """Return mu and sigma."""
        a, mu = params.chunk(2, dim=-1)
        sigma = F.softplus(a + SOFTPLUS_ONE)
        return mu, self.min_scale + (1 - self.min_scale) * sigma


class AffineExp(AffineTransform):
    """Affine with sigma = exp(a) (TARFlow)."""

    def location_and_scale(
        self, params: Float[Tensor, "*b p"]
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b d"]]:
        """Return mu and sigma."""
        a, mu = params.chunk(2, dim=-1)
        return mu, a.exp()

    def forward(
        self, x: Float[Tensor, "*b d"], params: Float[Tensor, "*b p"]
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b d"]]:
        """Standardise x; the log-determinant is -a itself, without a logarithm of an exp."""
        a, mu = params.chunk(2, dim=-1)
        return (x - mu) * torch.exp(-a), -a
