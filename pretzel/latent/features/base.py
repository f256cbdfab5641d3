"""The contract of feature encoders: one frozen map from images to a grid of vectors."""

from abc import ABC, abstractmethod

import torch.nn.functional as F
from torch import nn

from pretzel.errors import UserError
from pretzel.typing import Float, Tensor


class FeatureEncoder(nn.Module, ABC):
    """A frozen vision encoder.

    Its network is loaded with the first image and is no submodule: a configuration can be checked
    and counted without weights, and no optimizer and no checkpoint holds them.

    Attributes:
        image_size: Side of the square images, in pixels.
        grid: Rows and columns of the features.
        stages: Channels of each stage; a feature vector has those of the first stage first.
    """

    image_size: int
    grid: tuple[int, int]
    stages: tuple[int, ...]

    @property
    def channels(self) -> int:
        """Length of a feature vector."""
        return sum(self.stages)

    @property
    @abstractmethod
    def identity(self) -> str:
        """Name, settings and content hash of the weights, which it loads."""

    @abstractmethod
    def forward(self, images: Float[Tensor, "m 3 height width"]) -> Float[Tensor, "m n f"]:
        """Return the features of images in [-1, 1], positions in raster order.

        Raises:
            UserError: If the images have another size, or the weights cannot be had.
        """

    def check_size(self, images: Tensor) -> None:
        """Refuse images of another size.

        Raises:
            UserError: Naming both sizes.
        """
        if images.shape[-2:] != (self.image_size, self.image_size):
            raise UserError(
                f"images must be {self.image_size} x {self.image_size} pixels "
                f"(image_size of the feature encoder), got {tuple(images.shape[-2:])}"
            )


def resize(images: Float[Tensor, "m 3 height width"], side: int) -> Float[Tensor, "m 3 side side"]:
    """Return square images of another size, bilinear, with antialiasing where they shrink."""
    if images.shape[-1] == side:
        return images
    return F.interpolate(images, (side, side), mode="bilinear", antialias=True)
