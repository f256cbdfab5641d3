"""Decodes the bytes of one picture into pixels: one crop, one flip and one resize."""

from dataclasses import dataclass, field
from typing import final

import numpy as np
import PIL
import torch
from jaxtyping import UInt8

from datamodules.decoding.crops import CentreCrop, Crop
from datamodules.decoding.flips import Flip
from datamodules.decoding.media import MediaDecoder
from datamodules.sample import Unusable
from pretzel.ablation.identity.source_code import own_code
from pretzel.files.image_file import read_picture
from pretzel.files.medium_error import MediumError
from pretzel.media.pictures import Pictures
from pretzel.media.rgb import CONVERSION_VERSION, RGB, WHITE, to_rgb
from pretzel.rng import stream


@final
@dataclass(frozen=True, kw_only=True)
class PictureDecoder(MediaDecoder):
    """Decodes pictures to squares of RGB bytes.

    What is read and how it becomes RGB is :func:`pretzel.files.image_file.read_picture` and
    :func:`pretzel.media.rgb.to_rgb`, the same that users of a trained model go through.

    Attributes:
        image_size: Side of the squares in pixels.
        upscale: Whether smaller pictures are enlarged; otherwise they cannot serve.
        crop: Makes the square.
        flip: Mirrors or turns it in training, if given.
        background: Colour behind transparent pixels.
    """

    image_size: int
    upscale: bool = False
    crop: Crop = field(default_factory=CentreCrop)
    flip: Flip | None = None
    background: RGB = WHITE

    @property
    def medium(self) -> Pictures:
        """Pictures of this size."""
        return Pictures(self.image_size)

    @property
    def is_random(self) -> bool:
        """Whether training pictures are another in every epoch."""
        return self.crop.is_random or self.flip is not None

    @property
    def identity(self) -> str:
        """All that equal bytes become equal pixels by; a crop of a user counts with its code."""
        crop, kind = self.crop, type(self.crop)
        values = sorted(vars(crop).items())
        return (
            f"{kind.__module__}.{kind.__qualname__}{values}{own_code(kind)} of {self.image_size} "
            f"pixels, upscale {self.upscale}, background {self.background}, conversion "
            f"{CONVERSION_VERSION}, Pillow {PIL.__version__}"
        )

    def __call__(
        self, data: bytes, draw: torch.Generator | None = None
    ) -> UInt8[np.ndarray, "height width 3"]:
        """Return the pixels of a picture.

        Args:
            data: Bytes of an image file.
            draw: Random numbers of crop and flip; None in evaluation, which flips nothing.

        Raises:
            Unusable: If the bytes are no picture, it is too large or too small, or its colours
                cannot be told.
        """
        try:
            picture = read_picture(data)
            width, height = picture.size
            if self.crop.limiting_side(width, height) < self.image_size and not self.upscale:
                raise MediumError(
                    "too small",
                    f"{width}x{height} pixels, smaller than image_size={self.image_size}: lower "
                    "image_size or set upscale: true",
                )
            rgb = to_rgb(picture, self.background)
        except MediumError as error:
            raise Unusable(error.reason, str(error)) from error
        if draw is None:
            return np.array(self.crop(rgb, self.image_size, None))
        # of each its own: with or without a flip, the crops are the same
        numbers = torch.randint(2**62, (2,), generator=draw).tolist()
        square = self.crop(rgb, self.image_size, stream("crop", numbers[0]))
        if self.flip is not None:
            square = self.flip(square, stream("flip", numbers[1]))
        return np.array(square)
