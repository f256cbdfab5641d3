"""Patches of pixels as features: the control of what a vision encoder gives."""

from typing import final

import torch

from pretzel.latent.features.base import FeatureEncoder
from pretzel.latent.pixels import Pixels
from pretzel.typing import Float, Tensor


@final
class PixelPatches(FeatureEncoder):
    """The pixels of each patch, as they are: a feature autoencoder of them is one of pixels.

    Args:
        image_size: Side of the square images, in pixels.
        patch_size: Side of a patch, in pixels; it must divide ``image_size``.

    Raises:
        UserError: If a size is not positive, or does not divide the other.
    """

    def __init__(self, image_size: int, patch_size: int) -> None:
        super().__init__()
        self._pixels = Pixels(image_size, patch_size, noise=0.0)
        self.image_size = image_size
        self.patch_size = patch_size
        self.grid = (image_size // patch_size,) * 2
        self.stages = (self._pixels.channels,)

    @property
    def identity(self) -> str:
        """Name and settings."""
        return f"pixel-patches:{self.image_size}/{self.patch_size}"

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "m 3 height width"]) -> Float[Tensor, "m n f"]:
        """Return the patches."""
        self.check_size(images)
        return self._pixels.encode(images)
