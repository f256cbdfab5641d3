"""Affine transforms, whose conditionals are Gaussian."""

from abc import ABC, abstractmethod

import torch

from pretzel.errors import UserError
from pretzel.flow.transforms.base import Params, Transform, Values, unit_softplus


class AffineTransform(Transform, ABC):
    """z = (x - mu) / sigma: the conditionals are Gaussian, so guidance can mix them.

    Raw parameters: [a (d) | mu (d)], where sigma is a function of a.
    """

    params_per_channel = 2
    is_affine = True

    @abstractmethod
    def location_and_scale(self, params: Params) -> tuple[Values, Values]:
        """Return mu and sigma > 0 of raw parameters."""

    def forward(self, x: Values, params: Params) -> tuple[Values, Values]:
        """Standardise x."""
        mu, sigma = self.location_and_scale(params)
        return (x - mu) / sigma, -sigma.log()

    def inverse(self, z: Values, params: Params) -> Values:
        """Return z sigma + mu."""
        mu, sigma = self.location_and_scale(params)
        return z * sigma + mu


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

    def location_and_scale(self, params: Params) -> tuple[Values, Values]:
        """Return mu and sigma."""
        a, mu = params.chunk(2, dim=-1)
        return mu, unit_softplus(a, self.min_scale)


class AffineExp(AffineTransform):
    """Affine with sigma = exp(a) (TarFlow)."""

    def location_and_scale(self, params: Params) -> tuple[Values, Values]:
        """Return mu and sigma."""
        a, mu = params.chunk(2, dim=-1)
        return mu, a.exp()

    def forward(self, x: Values, params: Params) -> tuple[Values, Values]:
        """Standardise x; the log-determinant is -a itself, without a logarithm of an exp."""
        a, mu = params.chunk(2, dim=-1)
        return (x - mu) * torch.exp(-a), -a
