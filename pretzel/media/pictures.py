"""Pictures: squares of RGB pixels."""

from pathlib import Path
from typing import final

import numpy as np
import PIL
import torch
from jaxtyping import UInt8
from PIL import Image

from pretzel.errors import UserError
from pretzel.files.image_file import IMAGE_SUFFIXES, read_picture
from pretzel.media.base import Medium
from pretzel.media.image_input import ImageInput, as_pixels, crop_and_resize
from pretzel.media.integers import to_integers
from pretzel.media.rgb import CONVERSION_VERSION
from pretzel.media.sheet import save_png
from pretzel.typing import Float, Tensor


@final
class Pictures(Medium):
    """Square pictures: items [3, size, size]; read cropped and resized, written as PNG.

    Args:
        size: Side in pixels.

    Raises:
        UserError: If it is not positive.
    """

    suffixes = IMAGE_SUFFIXES
    suffix = "png"
    dtype = torch.uint8

    def __init__(self, size: int) -> None:
        if size < 1:
            raise UserError(f"size must be positive, got {size}")
        self.size = size

    @property
    def shape(self) -> tuple[int, ...]:
        """Colours, rows, columns."""
        return 3, self.size, self.size

    @property
    def identity(self) -> str:
        """Size, and versions of what converts."""
        return f"pictures:{self.size}:{CONVERSION_VERSION}:{PIL.__version__}"

    def __str__(self) -> str:
        return f"{self.size} px"

    def read(self, data: bytes) -> UInt8[np.ndarray, "height width 3"]:
        """Return the largest centred square, resized."""
        return crop_and_resize(read_picture(data), self.size)

    def tensor(self, given: ImageInput) -> Float[Tensor, "3 height width"]:
        """Return an image of any size cropped and resized (:func:`.as_pixels`)."""
        return as_pixels([given], self.size)[0]

    def output(self, item: Float[Tensor, "3 height width"]) -> Image.Image:
        """Return the picture of 8 bits."""
        return Image.fromarray(to_integers(item).permute(1, 2, 0).cpu().numpy())

    def picture(self, output: Image.Image) -> Image.Image:
        """Return the picture itself."""
        return output

    def save(self, output: Image.Image, path: Path) -> None:
        """Write a PNG."""
        save_png(output, path)
