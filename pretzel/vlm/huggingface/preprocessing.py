"""Colours and sizes of images for a vision tower, as its own preprocessor has them."""

from dataclasses import dataclass

from pretzel.errors import UserError
from pretzel.vlm.huggingface.untyped import Config

Colours = tuple[float, float, float]

CLIP_MEAN: Colours = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Colours = (0.26862954, 0.26130258, 0.27577711)
HALF: Colours = (0.5, 0.5, 0.5)

LONGEST = 200
"""Times its shorter side that the longer side of an image may be."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Mean and standard deviation of each colour in [0, 1], and the size that a tower takes.

    ``pixels`` are the least and most that a resized image has; None where the tower has one size.
    """

    mean: Colours
    std: Colours
    pixels: tuple[int, int] | None = None


def resized(height: int, width: int, unit: int, pixels: tuple[int, int]) -> tuple[int, int]:
    """Return the size to which Qwen's towers resize an image (arXiv 2409.12191, section 2.1).

    Its sides are the nearest multiples of ``unit``, the side of a merged patch; an image with too
    many or too few ``pixels`` then is scaled as a whole, and its sides are rounded to the inside of
    these limits.

    Raises:
        UserError: If one side is longer than 200 times the other.
    """
    if max(height, width) > LONGEST * min(height, width):
        raise UserError(
            f"images must have an aspect ratio of at most {LONGEST} for this vision tower, got "
            f"{height} x {width} pixels"
        )
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    size: tuple[int, int] = smart_resize(height, width, unit, *pixels)
    return size


def load_preprocessing(
    name: str | None, default: Preprocessing, min_pixels: int | None, max_pixels: int | None
) -> Preprocessing:
    """Return the user's limits, or else those of a model's preprocessor, or the family's default.

    Raises:
        UserError: If the preprocessor's configuration cannot be understood, or the limits not be
            met.
    """
    config: Config = {} if name is None else _read(name)
    if not isinstance(config, dict):
        raise UserError(f"the preprocessor configuration of {name} must be an object, got {config}")
    if config.get("do_normalize", True):
        mean = _colours(config, "image_mean", default.mean, name)
        std = _colours(config, "image_std", default.std, name)
    else:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if default.pixels is None:
        return Preprocessing(mean=mean, std=std)

    size = config.get("size")
    size = size if isinstance(size, dict) else {}
    # what a preprocessor calls edges are numbers of pixels here
    least = (min_pixels, config.get("min_pixels"), size.get("shortest_edge"), default.pixels[0])
    most = (max_pixels, config.get("max_pixels"), size.get("longest_edge"), default.pixels[1])
    limits = [next(value for value in values if value is not None) for values in (least, most)]
    if not all(isinstance(value, int) for value in limits) or not 0 < limits[0] <= limits[1]:
        of_folder = "" if name is None else f" of {name}"
        raise UserError(
            f"limits of pixels{of_folder} must be integers with 0 < min_pixels <= max_pixels, got "
            f"{limits[0]} and {limits[1]}"
        )
    return Preprocessing(mean=mean, std=std, pixels=(limits[0], limits[1]))


def _read(name: str) -> Config:
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        return ImageProcessingMixin.get_image_processor_dict(name)[0]
    except (OSError, ValueError):
        return {}  # a model without a preprocessor


def _colours(config: Config, key: str, default: Colours, name: str | None) -> Colours:
    value = config.get(key)
    if value is None:
        return default
    values = list(value) if isinstance(value, list | tuple) else [value] * len(default)
    try:
        red, green, blue = map(float, values)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{key} in the preprocessor configuration of {name} must be three numbers, got "
            f"{value!r}"
        ) from error
    return red, green, blue
