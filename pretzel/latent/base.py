"""The contract of latent spaces: one encode and one decode."""

import math
from abc import ABC, abstractmethod

from torch import nn

from pretzel.errors import UserError
from pretzel.typing import Float, Tensor


class LatentSpace(nn.Module, ABC):
    """A frozen map between images and grids of latent vectors.

    Attributes:
        grid: Shape of the latent grid, rows first (n-D).
        channels: Channels D of one latent position.
        noise: Standard deviation of the Gaussian noise added to latents (0 for none).
        image_size: Side of the square images, in pixels.
    """

    grid: tuple[int, ...]
    channels: int
    noise: float
    image_size: int

    @property
    def num_positions(self) -> int:
        """Positions N of one image: the product of the grid."""
        return math.prod(self.grid)

    @property
    def dims(self) -> int:
        """Dimensions of one image in this space, N * D."""
        return self.num_positions * self.channels

    @property
    @abstractmethod
    def identity(self) -> str:
        """Name, settings and, where there are weights, their content hash."""

    @abstractmethod
    def encode(self, images: Float[Tensor, "m 3 height width"]) -> Float[Tensor, "m n d"]:
        """Map images in [-1, 1] to clean latents, positions in raster order."""

    @abstractmethod
    def decode(self, latents: Float[Tensor, "m n d"]) -> Float[Tensor, "m 3 height width"]:
        """Map latents to images; values may leave [-1, 1] a little."""

    def check_size(self, images: Tensor) -> None:
        """Refuse images of another size.

        Raises:
            UserError: Naming both sizes.
        """
        if images.shape[-2:] != (self.image_size, self.image_size):
            raise UserError(
                f"images must be {self.image_size} x {self.image_size} pixels "
                f"(image_size of the latent space), got {tuple(images.shape[-2:])}"
            )


def check_noise(noise: float) -> None:
    """Refuse a standard deviation of the training noise that is negative or not finite."""
    if not 0 <= noise < math.inf:
        raise UserError(f"noise must be 0 or positive, and finite, got {noise}")
