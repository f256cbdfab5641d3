"""The contract of elementwise transforms."""

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F

from pretzel.errors import UserError
from pretzel.typing import Float, Tensor

Values = Float[Tensor, "*b d"]
"""A number for each channel."""

Params = Float[Tensor, "*b p"]
"""Raw parameters: p is ``params_per_channel`` times d."""

SOFTPLUS_ONE = math.log(math.e - 1)  # softplus(SOFTPLUS_ONE) = 1


class Transform(ABC):
    """A monotone map of every channel, with parameters from the positions before.

    A transform has no state: :meth:`forward` and :meth:`inverse` take all its raw parameters, group
    by group (each of d numbers), free groups first: [free | conditional].

    Attributes:
        params_per_channel: Raw parameters for each channel. All zero must mean the identity, so
            that a flow starts as one.
        free_per_channel: Number of free ones among them: learned for every position and channel,
            but conditioned on nothing. They stand first, and are weights of the block.
        is_affine: Whether z = (x - mu) / sigma, so that the conditionals are Gaussian.
    """

    params_per_channel: int
    free_per_channel: int = 0
    is_affine: bool = False

    @property
    def conditional_per_channel(self) -> int:
        """Raw parameters that the conditioner gives for each channel."""
        return self.params_per_channel - self.free_per_channel

    @abstractmethod
    def forward(self, x: Values, params: Params) -> tuple[Values, Values]:
        """Return z and log|dz/dx|, both for each channel."""

    @abstractmethod
    def inverse(self, z: Values, params: Params) -> Values:
        """Return x such that ``forward(x, params)[0] = z``."""

    def location_and_scale(self, params: Params) -> tuple[Values, Values]:
        """Return mu and sigma > 0 of raw parameters.

        Raises:
            UserError: If the transform is not affine.
        """
        raise UserError(
            f"transform must be affine to have a location and a scale, got {type(self).__name__}"
        )


def with_free_params(
    free: Float[Tensor, "n f"] | None, params: Float[Tensor, "b k p"], start: int
) -> Float[Tensor, "b k q"]:
    """Put the free parameters of positions start, start + 1, ... before the conditional ones."""
    if free is None:
        return params
    rows = free[start : start + params.shape[1]].expand(len(params), -1, -1)
    return torch.cat([rows, params], dim=-1)


def unit_softplus(raw: Float[Tensor, "*s"], minimum: float) -> Float[Tensor, "*s"]:
    """Return a positive number that is 1 at ``raw`` = 0 and never below ``minimum`` < 1."""
    return minimum + (1 - minimum) * F.softplus(raw + SOFTPLUS_ONE)
