"""Images as a model takes them: one conversion to RGB, one resize and one scale, at all times."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from pretzel.errors import UserError
from pretzel.files.image_file import open_image
from pretzel.files.medium_error import MediumError
from pretzel.media.integers import arrays_to_floats
from pretzel.media.rgb import to_rgb
from pretzel.typing import Float, Tensor

ImageInput = Image.Image | Tensor | str | Path
"""A picture, a tensor [3, H, W] (floats in [-1, 1] or bytes), or the path of an image file."""


def crop_and_resize(picture: Image.Image, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Resize the largest centred square of a picture, as RGB, to ``size`` pixels a side.

    Raises:
        MediumError: If it cannot be converted by :func:`pretzel.media.rgb.to_rgb`.
    """
    return np.array(resize_centre(to_rgb(picture), size))


def resize_centre(rgb: Image.Image, size: int) -> Image.Image:
    """Return the largest centred square of a picture, resized.

    Cropping first is the same as resizing the shorter side and cropping the centre.
    """
    side = min(rgb.size)
    left, top = (rgb.width - side) / 2, (rgb.height - side) / 2
    return resize_region(rgb, size, (left, top, left + side, top + side))


def resize_region(
    rgb: Image.Image, size: int, box: tuple[float, float, float, float]
) -> Image.Image:
    """Return a box (left, top, right, bottom) of a picture as a square of ``size`` pixels a side.

    The resize is antialiased and bicubic; a picture that is the square already is returned itself.
    """
    if rgb.size == (size, size) and box == (0, 0, size, size):
        return rgb
    return rgb.resize((size, size), Image.Resampling.BICUBIC, box=box)


def as_pixels(images: Sequence[ImageInput], size: int) -> Float[Tensor, "n 3 size size"]:
    """Return one or more images of any size as the datamodules give them to the model, in [-1, 1].

    A float tensor that has the right size already is taken as it is; every other image is rounded
    to 8 bits, as a file would be, and then cropped and resized.

    Raises:
        UserError: If a file cannot be read as an image, a tensor is no image in [-1, 1], the
            colours of a picture cannot be told, or it is none of these.
    """
    return torch.cat([_one_image(image, size) for image in images])


def _one_image(image: ImageInput, size: int) -> Float[Tensor, "1 3 size size"]:
    if isinstance(image, torch.Tensor):
        _check_tensor(image)
        if image.dtype.is_floating_point:
            if image.shape[-2:] == (size, size):
                return image[None].detach().to("cpu", torch.float32)
            image = ((image.float() + 1) * 127.5).round().to(torch.uint8)
        image = Image.fromarray(image.permute(1, 2, 0).cpu().numpy())
    elif isinstance(image, str | Path):
        image = open_image(image)
    elif not isinstance(image, Image.Image):
        kind = type(image).__name__
        raise UserError(f"image must be a picture, a tensor or the path of a file, got a {kind}")
    try:
        return arrays_to_floats([crop_and_resize(image, size)])
    except MediumError as error:
        raise UserError(f"image cannot be converted to RGB: {error}") from error


def _check_tensor(image: Tensor) -> None:
    if image.ndim != 3 or image.shape[0] != 3 or not image.numel():
        raise UserError(f"image must be a tensor [3, height, width], got {list(image.shape)}")
    if image.dtype.is_floating_point:
        low, high = image.min().item(), image.max().item()
        if not -1.001 <= low <= high <= 1.001:  # rounding is forgiven, [0, 255] is not
            raise UserError(f"image must hold values in [-1, 1], got {low:.4g} to {high:.4g}")
    elif image.dtype != torch.uint8:
        raise UserError(f"image must hold floats in [-1, 1] or bytes, got {image.dtype}")
