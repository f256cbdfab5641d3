"""Pixel decoders: features of the frozen encoder to images."""

from abc import ABC, abstractmethod
from typing import Protocol, final, runtime_checkable

from torch import nn

from pretzel.errors import UserError
from pretzel.flow.sizes import check_sizes
from pretzel.latent.convolutions import check_widths, upsampling
from pretzel.latent.fae.transformer import GridTransformer
from pretzel.latent.pixels import unpatchify
from pretzel.typing import Float, Tensor


class PixelDecoder(nn.Module, ABC):
    """Maps standardised features to images."""

    @abstractmethod
    def forward(self, features: Float[Tensor, "m n f"]) -> Float[Tensor, "m 3 height width"]:
        """Return images; values may leave [-1, 1] a little."""


@runtime_checkable
class PixelDecoderFactory(Protocol):
    """Makes a pixel decoder for the features of an encoder."""

    def __call__(self, grid: tuple[int, int], features: int, image_size: int) -> PixelDecoder:
        """Return a pixel decoder."""


@final
class ViTPixelDecoder(PixelDecoder):
    """A vision transformer whose positions each become a patch of pixels (arXiv 2512.07829).

    Args:
        grid: Rows and columns of the features (given by the network).
        features: Channels of the features (given by the network).
        image_size: Side of the images, in pixels (given by the network).
        width: Channels of the residual stream.
        num_layers: Layers.
        head_dim: Channels of a head.

    Raises:
        UserError: If a size is not positive, or the grid does not divide the image.
    """

    def __init__(
        self,
        grid: tuple[int, int],
        features: int,
        image_size: int,
        *,
        width: int,
        num_layers: int,
        head_dim: int = 64,
    ) -> None:
        super().__init__()
        if image_size % grid[0]:
            raise UserError(
                f"image_size must be a multiple of the {grid[0]} rows of features, got {image_size}"
            )
        self.width = width
        self.num_layers = num_layers
        self.head_dim = head_dim
        self.grid = grid
        self.patch_size = image_size // grid[0]
        self.input = nn.Linear(features, width)
        self.transformer = GridTransformer(
            grid=grid, width=width, num_layers=num_layers, head_dim=head_dim
        )
        self.out = nn.Linear(width, 3 * self.patch_size**2)

    def forward(self, features: Float[Tensor, "m n f"]) -> Float[Tensor, "m 3 height width"]:
        """Return images."""
        patches = self.out(self.transformer(self.input(features)))
        return unpatchify(patches, self.grid, self.patch_size)


@final
class ConvPixelDecoder(PixelDecoder):
    """Residual convolutions that double the resolution step by step.

    Args:
        grid: Rows and columns of the features (given by the network).
        features: Channels of the features (given by the network).
        image_size: Side of the images, in pixels (given by the network).
        widths: Channels at each resolution, coarse to fine, multiples of 8, one entry for each
            doubling from the grid to the image.
        num_blocks: Residual blocks at each resolution.

    Raises:
        UserError: If the widths are no such numbers.
    """

    def __init__(
        self,
        grid: tuple[int, int],
        features: int,
        image_size: int,
        *,
        widths: tuple[int, ...],
        num_blocks: int,
    ) -> None:
        super().__init__()
        check_widths(widths)
        check_sizes(num_blocks=num_blocks)
        if grid[0] * 2 ** len(widths) != image_size:
            raise UserError(
                f"widths must have one entry for each doubling from {grid[0]} rows of features to "
                f"image_size={image_size}, got {len(widths)}"
            )
        self.widths = tuple(widths)
        self.num_blocks = num_blocks
        self.grid = grid
        self.layers = upsampling(features, self.widths, num_blocks)

    def forward(self, features: Float[Tensor, "m n f"]) -> Float[Tensor, "m 3 height width"]:
        """Return images."""
        m, _, f = features.shape
        images: Tensor = self.layers(features.transpose(1, 2).reshape(m, f, *self.grid))
        return images
