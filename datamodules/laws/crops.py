"""The laws of crops."""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from datamodules.decoding.crops import Crop
from pretzel.rng import stream
from pretzel.testing.deviation import Deviation, require, unmeasured
from pretzel.testing.global_state import untouched
from pretzel.testing.law_case import Case

SIZES = ((40, 24), (24, 40), (16, 16), (7, 90), (1, 1))
"""Widths and heights of the pictures that are tried."""

SIDE = 16
"""Pixels along a side of the squares."""


def pictures() -> list[Image.Image]:
    """Return pictures of noise."""
    numbers = np.random.Generator(np.random.PCG64(0))
    arrays = [numbers.integers(0, 256, (h, w, 3), dtype=np.uint8) for w, h in SIZES]
    return [Image.fromarray(array) for array in arrays]


def check_squares(
    make: Callable[[Image.Image, torch.Generator], Image.Image], images: list[Image.Image]
) -> None:
    """Check that each square is RGB, of the right size, and belongs to its random numbers."""
    for image in images:
        before = image.tobytes()
        with untouched("making a square of a picture"):
            squares = [make(image, stream("picture", place)) for place in range(4)]
        for square in squares:
            found = f"{square.size} {square.mode}"
            require(square.size == (SIDE, SIDE), f"{image.size} becomes {found}")
            require(square.mode == "RGB", f"{image.size} becomes {found}")
        again = [make(image, stream("picture", place)) for place in reversed(range(4))]
        same = [a.tobytes() == b.tobytes() for a, b in zip(squares, again[::-1], strict=True)]
        require(all(same), f"{image.size}: equal random numbers give other squares")
        require(image.tobytes() == before, f"the picture of {image.size} is changed")


def squares_belong_to_their_numbers(case: Case[Crop]) -> Deviation:
    """A square has another size, depends on more than picture and generator, or changes one."""
    crop = case.build()
    check_squares(lambda picture, draw: crop(picture, SIDE, draw), pictures())
    return unmeasured("squares")


def evaluation_is_not_random(case: Case[Crop]) -> Deviation:
    """Without a generator the square differs from time to time, or is_random is wrong."""
    crop, other = case.build(), case.build(seed=1)
    images = pictures()
    with untouched("cropping for evaluation"):
        first = [crop(image, SIDE, None).tobytes() for image in images]
    again = [other(image, SIDE, None).tobytes() for image in reversed(images)]
    for image, square, another in zip(images, first, reversed(again), strict=True):
        require(square == another, f"{image.size}: another square the second time")
        if not crop.is_random:
            drawn = crop(image, SIDE, stream("picture")).tobytes()
            require(drawn == square, f"{image.size}: is_random is false, but the square is drawn")
    return unmeasured("squares in evaluation")


def limiting_side_is_one_of_the_picture(case: Case[Crop]) -> Deviation:
    """The limiting side is neither the width nor the height of a picture."""
    crop = case.build()
    for width, height in SIZES:
        side = crop.limiting_side(width, height)
        require(side in (width, height), f"{side} is no side of {width}x{height}")
    return unmeasured("sides")
