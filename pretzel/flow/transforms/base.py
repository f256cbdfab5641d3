"""What every elementwise transform is."""

import math
from abc import ABC, abstractmethod

import torch.nn.functional as F

from pretzel.errors import UserError
from pretzel.typing import Float, Tensor

SOFTPLUS_ONE = math.log(math.e - 1)  # softplus(SOFTPLUS_ONE) = 1


class Transform(ABC):
    """A monotone map of every channel, parameterised from the positions before.

    A transform has no state of its own: :meth:`forward` and :meth:`inverse` are given all its raw
    numbers, group by group (each of d numbers), free groups first: [free | conditional].

    Attributes:
        params_per_channel: Raw parameters for each channel. All zero must mean the identity, so
            that a flow starts as one.
        free_per_channel: How many of them are free: learned for every position and channel, but
            conditioned on nothing. They stand first, and belong to the block.
    """

    params_per_channel: int
    free_per_channel: int = 0

    @property
    def conditional_per_channel(self) -> int:
        """Raw parameters that the conditioner gives for each channel."""
        return self.params_per_channel - self.free_per_channel

    @property
    def is_affine(self) -> bool:
        """Whether z = (x - mu) / sigma, so that the conditionals are Gaussian."""
        return False

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

    def location_and_scale(
        self, params: Float[Tensor, "*b p"]
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b d"]]:
        """Return mu and sigma > 0 of raw parameters.

        Raises:
            UserError: If the transform is not affine.
        """
        raise UserError(
            f"transform must be affine to have a location and a scale, got {type(self).__name__}"
        )


def unit_softplus(raw: Float[Tensor, "*s"], minimum: float) -> Float[Tensor, "*s"]:
    """Return a positive number that is 1 at ``raw`` = 0 and never below ``minimum`` < 1."""
    return minimum + (1 - minimum) * F.softplus(raw + SOFTPLUS_ONE)
