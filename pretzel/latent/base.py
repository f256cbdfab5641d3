"""The contract of latent spaces: one encode and one decode."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

from torch import nn

from pretzel.errors import UserError
from pretzel.media.base import Medium
from pretzel.media.pictures import Pictures
from pretzel.typing import Float, Tensor


class LatentSpace(nn.Module, ABC):
    """A frozen map between images, or items of another medium, and grids of latent vectors.

    Attributes:
        grid: Shape of the latent grid, rows first (n-D).
        channels: Channels D of one latent position.
        noise: Standard deviation of the Gaussian noise added to latents (0 for none).
        image_size: Side of the square images, in pixels; of pictures alone (:attr:`medium`).
        trained_by: Configuration that trains it on images, over which each channel then has mean 0
            and variance 1; empty of a space that claims no such thing.
    """

    grid: tuple[int, ...]
    channels: int
    noise: float
    image_size: int
    trained_by: ClassVar[str] = ""

    @property
    def medium(self) -> Medium:
        """Kind and size of the items that are encoded: by default pictures of ``image_size``."""
        return Pictures(self.image_size)

    @property
    def num_positions(self) -> int:
        """Positions N of one item: the product of the grid."""
        return math.prod(self.grid)

    @property
    def dims(self) -> int:
        """Dimensions of one item in this space, N * D."""
        return self.num_positions * self.channels

    @property
    @abstractmethod
    def identity(self) -> str:
        """Name, settings and, where there are weights, their content hash."""

    @abstractmethod
    def encode(self, images: Float[Tensor, "m ..."]) -> Float[Tensor, "m n d"]:
        """Map items in [-1, 1] to clean latents, positions in raster order."""

    @abstractmethod
    def decode(self, latents: Float[Tensor, "m n d"]) -> Float[Tensor, "m ..."]:
        """Map latents to items; values may leave [-1, 1] a little."""

    def check_size(self, images: Tensor) -> None:
        """Refuse items of another size.

        Raises:
            UserError: Naming both sizes.
        """
        medium = self.medium
        if images.shape[1:] != medium.shape:
            raise UserError(
                f"items of the latent space {type(self).__name__} are {list(medium.shape)} "
                f"({medium}), got {list(images.shape[1:])}"
            )


def check_varying(variance: Float[Tensor, " d"]) -> None:
    """Refuse latent channels that are constant: at unit variance they would be noise.

    Args:
        variance: Of each channel over the training images, before it is scaled to 1.

    Raises:
        UserError: Naming the first one.
    """
    constant = (variance < 1e-8).nonzero().flatten().tolist()
    if constant:
        raise UserError(
            f"channels: {len(constant)} of {len(variance)} latent channels are constant, the first "
            f"is number {constant[0]}: train with fewer, or on images that differ"
        )


def check_noise(noise: float) -> None:
    """Refuse a standard deviation of the training noise that is negative or not finite."""
    if not 0 <= noise < math.inf:
        raise UserError(f"noise must be 0 or positive, and finite, got {noise}")
