"""Losses of reconstructed images."""

from abc import ABC, abstractmethod
from typing import ClassVar, final

from torch import nn

from pretzel.errors import UserError
from pretzel.typing import Float, Tensor


class ImageLoss(nn.Module, ABC):
    """A distance of images from those that they should be.

    Attributes:
        name: Of the loss in logs.
        weight: Factor in the sum of losses.
    """

    name: ClassVar[str]
    no_laws: ClassVar[str] = "any loss may be tried; what it leads to is measured"
    weight: float

    @abstractmethod
    def forward(
        self,
        images: Float[Tensor, "m 3 height width"],
        targets: Float[Tensor, "m 3 height width"],
    ) -> Float[Tensor, " m"]:
        """Return the loss of each image."""


def _check_weight(weight: float) -> None:
    if not 0 < weight < float("inf"):
        raise UserError(f"weight must be positive and finite, got {weight}")


@final
class AbsoluteError(ImageLoss):
    """Mean absolute difference: edges and flat areas stay clean.

    Args:
        weight: Factor in the sum of losses.

    Raises:
        UserError: If ``weight`` is not positive.
    """

    name = "l1"

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        _check_weight(weight)
        self.weight = weight

    def forward(
        self,
        images: Float[Tensor, "m 3 height width"],
        targets: Float[Tensor, "m 3 height width"],
    ) -> Float[Tensor, " m"]:
        """Return the loss of each image."""
        return (images - targets).abs().mean(dim=(1, 2, 3))


@final
class SquaredError(ImageLoss):
    """Mean squared difference: colours become right.

    Args:
        weight: Factor in the sum of losses.

    Raises:
        UserError: If ``weight`` is not positive.
    """

    name = "l2"

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        _check_weight(weight)
        self.weight = weight

    def forward(
        self,
        images: Float[Tensor, "m 3 height width"],
        targets: Float[Tensor, "m 3 height width"],
    ) -> Float[Tensor, " m"]:
        """Return the loss of each image."""
        return (images - targets).square().mean(dim=(1, 2, 3))
