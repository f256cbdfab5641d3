"""Pixel patches as latents."""

from pretzel.errors import UserError
from pretzel.latent.base import LatentSpace, check_noise
from pretzel.typing import Float, Tensor


def patchify(images: Float[Tensor, "m c height width"], size: int) -> Float[Tensor, "m n d"]:
    """Cut images into patches, raster order; channels of a patch run (c, row, column)."""
    # Not F.pixel_unshuffle, which leaves a batch without images in the shape that it has
    m, c, height, width = images.shape
    rows, columns = height // size, width // size
    x = images.reshape(m, c, rows, size, columns, size)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(m, rows * columns, c * size**2)


def unpatchify(
    patches: Float[Tensor, "m n d"], grid: tuple[int, ...], size: int
) -> Float[Tensor, "m c height width"]:
    """Invert :func:`patchify`."""
    m, _, d = patches.shape
    rows, columns = grid
    x = patches.reshape(m, rows, columns, d // size**2, size, size)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(m, d // size**2, rows * size, columns * size)


class Pixels(LatentSpace):
    """Pixel patches as latents, an exact change of variables.

    Args:
        image_size: Side of the square images, in pixels.
        patch_size: Side of a patch, in pixels; it must divide ``image_size``.
        noise: Standard deviation of the training noise, pixels scaled to [-1, 1].

    Raises:
        UserError: If a size is not positive, ``patch_size`` does not divide ``image_size``, or
            ``noise`` is negative or not finite.
    """

    def __init__(self, image_size: int, patch_size: int, noise: float) -> None:
        super().__init__()
        if image_size < 1:
            raise UserError(f"image_size must be positive, got {image_size}")
        if patch_size < 1 or image_size % patch_size:
            raise UserError(f"patch_size must divide image_size={image_size}, got {patch_size}")
        check_noise(noise)
        self.image_size = image_size
        self.patch_size = patch_size
        self.noise = noise
        self.grid = (image_size // patch_size,) * 2
        self.channels = 3 * patch_size**2

    @property
    def identity(self) -> str:
        """Name and settings."""
        return f"pixels:{self.image_size}/{self.patch_size}"

    def encode(self, images: Float[Tensor, "m 3 height width"]) -> Float[Tensor, "m n d"]:
        """Cut images into patches."""
        self.check_size(images)
        return patchify(images, self.patch_size)

    def decode(self, latents: Float[Tensor, "m n d"]) -> Float[Tensor, "m 3 height width"]:
        """Put the patches back together."""
        return unpatchify(latents, self.grid, self.patch_size)
