"""Colours and sizes of images for a vision tower, as its own preprocessor has them."""

import math
from dataclasses import dataclass
from typing import Any

from pretzel.errors import UserError

Colours = tuple[float, float, float]

CLIP_MEAN: Colours = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Colours = (0.26862954, 0.26130258, 0.27577711)
HALF: Colours = (0.5, 0.5, 0.5)

LONGEST = 200
"""Times its shorter side that the longer side of an image may be."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What is done to images.

    Attributes:
        mean: Of each colour, in [0, 1].
        std: Standard deviation of each colour.
        pixels: Least and most that a resized image has; None where the tower has one size.
    """

    mean: Colours
    std: Colours
    pixels: tuple[int, int] | None = None


def resized(height: int, width: int, unit: int, pixels: tuple[int, int]) -> tuple[int, int]:
    """Return the size in which Qwen's towers look at an image (arXiv 2409.12191, section 2.1).

    Its sides are the nearest multiples of ``unit``; an image with too many or too few pixels then
    is scaled as a whole, and its sides are rounded to the inside of the limits.

    Args:
        height: In pixels.
        width: In pixels.
        unit: Side of a merged patch.
        pixels: Least and most that the result may have.

    Raises:
        UserError: If one side is longer than 200 times the other.
    """
    if max(height, width) > LONGEST * min(height, width):
        raise UserError(
            f"images must have an aspect ratio of at most {LONGEST} for this vision tower, got "
            f"{height} x {width} pixels"
        )
    least, most = pixels
    nearest = round(height / unit) * unit, round(width / unit) * unit
    count = math.prod(nearest)
    if count > most:
        scale = math.sqrt(height * width / most)
        down = (max(math.floor(side / scale / unit), 1) * unit for side in (height, width))
        return next(down), next(down)
    if count < least:
        scale = math.sqrt(least / (height * width))
        return math.ceil(height * scale / unit) * unit, math.ceil(width * scale / unit) * unit
    return nearest


def load_preprocessing(
    name: str | None,
    default: Preprocessing,
    min_pixels: int | None,
    max_pixels: int | None,
) -> Preprocessing:
    """Return the user's limits, or else those of a folder's preprocessor, or the family's.

    Args:
        name: Hub id or local folder; None for the family's preprocessing.
        default: The family's.
        min_pixels: Least that a resized image has, by the user.
        max_pixels: Most that it has, by the user.

    Raises:
        UserError: If the preprocessor's configuration cannot be understood, or the limits not be
            met.
    """
    found: Any = {} if name is None else _read(name)
    if not isinstance(found, dict):
        raise UserError(f"the preprocessor configuration of {name} must be an object, got {found}")
    if found.get("do_normalize", True):
        mean = _colours(found, "image_mean", default.mean, name)
        std = _colours(found, "image_std", default.std, name)
    else:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if default.pixels is None:
        return Preprocessing(mean=mean, std=std)

    size = found.get("size")
    size = size if isinstance(size, dict) else {}
    # what a preprocessor calls edges are numbers of pixels here
    least = (min_pixels, found.get("min_pixels"), size.get("shortest_edge"), default.pixels[0])
    most = (max_pixels, found.get("max_pixels"), size.get("longest_edge"), default.pixels[1])
    limits = [next(value for value in values if value is not None) for values in (least, most)]
    if not all(isinstance(value, int) for value in limits) or not 0 < limits[0] <= limits[1]:
        of_folder = "" if name is None else f" of {name}"
        raise UserError(
            f"limits of pixels{of_folder} must be integers with 0 < min_pixels <= max_pixels, got "
            f"{limits[0]} and {limits[1]}"
        )
    return Preprocessing(mean=mean, std=std, pixels=(limits[0], limits[1]))


def _read(name: str) -> Any:  # noqa: ANN401
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        found, _ = ImageProcessingMixin.get_image_processor_dict(name)
    except (OSError, ValueError):
        return {}  # a model without a preprocessor
    return found


def _colours(found: dict[str, Any], key: str, default: Colours, name: str | None) -> Colours:
    value = found.get(key)
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
