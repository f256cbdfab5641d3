"""Crops: the part of a picture that the model sees, in training and in evaluation."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar, final

import torch
from PIL import Image

from pretzel.errors import UserError
from pretzel.media.image_input import resize_centre, resize_region
from pretzel.media.rgb import rgb_colour


class Crop(ABC):
    """Makes a square of ``size`` pixels a side out of an RGB picture.

    Attributes:
        is_random: Whether training pictures are cropped by chance.
        laws: Module of the laws of all crops.
    """

    laws: ClassVar[str] = "datamodules.laws"

    is_random: ClassVar[bool]

    @abstractmethod
    def limiting_side(self, width: int, height: int) -> int:
        """Return the side of a picture that must not be smaller than the square's."""

    @abstractmethod
    def __call__(
        self, picture: Image.Image, size: int, draw: torch.Generator | None
    ) -> Image.Image:
        """Return the square; the picture is left as it is.

        Args:
            picture: RGB picture.
            size: Side of the square in pixels.
            draw: Random numbers that belong to this picture and epoch; None in evaluation, where
                equal pictures give equal squares.
        """


@final
class CentreCrop(Crop):
    """The largest centred square, resized (antialiased, bicubic)."""

    is_random = False

    def limiting_side(self, width: int, height: int) -> int:
        """Return the shorter side."""
        return min(width, height)

    def __call__(
        self, picture: Image.Image, size: int, draw: torch.Generator | None
    ) -> Image.Image:
        """Return the square."""
        return resize_centre(picture, size)


@final
class RandomCrop(Crop):
    """A box of random shape, size and place; in evaluation the largest centred square.

    Of the largest box of a random aspect ratio that fits into the picture, a random share of the
    area is kept, at a random place, and resized (antialiased, bicubic). A box that is smaller than
    the square is enlarged.

    Args:
        scale: Range of the share of the area, uniform; ``[1.0, 1.0]`` moves the largest box along
            the longer side.
        aspect: Range of width divided by height, uniform in its logarithm; what is not 1 is
            squeezed into the square.

    Raises:
        UserError: If a range is not two increasing positive numbers, or a share is above 1.
    """

    is_random = True

    def __init__(
        self, scale: tuple[float, float] = (0.5, 1.0), aspect: tuple[float, float] = (1.0, 1.0)
    ) -> None:
        if not 0 < scale[0] <= scale[1] <= 1:
            raise UserError(f"scale must be two shares of an area in (0, 1], not {list(scale)}")
        if not 0 < aspect[0] <= aspect[1] < math.inf:
            raise UserError(
                f"aspect must be two positive ratios of width and height, not {list(aspect)}"
            )
        self.scale = scale
        self.aspect = aspect

    def limiting_side(self, width: int, height: int) -> int:
        """Return the shorter side."""
        return min(width, height)

    def __call__(
        self, picture: Image.Image, size: int, draw: torch.Generator | None
    ) -> Image.Image:
        """Return the square."""
        if draw is None:
            return resize_centre(picture, size)
        shape, share, across, down = torch.rand(4, generator=draw, dtype=torch.float64).tolist()
        aspect = self.aspect[0] * (self.aspect[1] / self.aspect[0]) ** shape
        side = math.sqrt(self.scale[0] + (self.scale[1] - self.scale[0]) * share)
        width = side * min(picture.width, picture.height * aspect)
        height = side * min(picture.height, picture.width / aspect)
        left, top = across * (picture.width - width), down * (picture.height - height)
        return resize_region(
            picture,
            size,
            (left, top, min(left + width, picture.width), min(top + height, picture.height)),
        )


@final
class Pad(Crop):
    """The whole picture in the middle of a square, resized by its longer side.

    Args:
        background: Colour of the rest: a name of CSS, or ``#rrggbb``.

    Raises:
        UserError: If there is no such colour.
    """

    is_random = False

    def __init__(self, background: str = "white") -> None:
        self.background = rgb_colour(background)

    def limiting_side(self, width: int, height: int) -> int:
        """Return the longer side."""
        return max(width, height)

    def __call__(
        self, picture: Image.Image, size: int, draw: torch.Generator | None
    ) -> Image.Image:
        """Return the square."""
        longest = max(picture.size)
        width, height = (max(1, round(side / longest * size)) for side in picture.size)
        square = Image.new("RGB", (size, size), self.background)
        resized = picture.resize((width, height), Image.Resampling.BICUBIC)
        square.paste(resized, (round((size - width) / 2), round((size - height) / 2)))
        return square
