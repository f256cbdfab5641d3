"""The world of moving shapes: what a video can show, its caption and its frames."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

FRAMES, SIZE, SHAPE_SIZE, SPEED = 6, 16, 6, 2
"""Frames of a video, sides of a frame and of a shape in pixels, pixels that it moves a frame."""

COLOURS = {
    "red": (220, 20, 20),
    "green": (20, 160, 40),
    "blue": (30, 60, 220),
    "yellow": (250, 200, 0),
    "purple": (150, 30, 170),
    "black": (0, 0, 0),
}
DIRECTIONS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
"""Rows and columns of each way that a shape moves."""

_FINE = 8
"""Points a side that a pixel is sampled at: edges are smooth."""


def _covered(shape: str) -> Float[np.ndarray, "side side"]:
    """Return how much of each pixel a shape covers, from 0 to 1."""
    count = SHAPE_SIZE * _FINE
    y, x = (np.mgrid[:count, :count] + 0.5) * 2 / count - 1
    inside = {
        "circle": x**2 + y**2 <= 1,
        "square": np.maximum(abs(x), abs(y)) <= 0.86,
        "triangle": abs(x) <= (y + 1) / 2,
    }[shape]
    return inside.reshape(SHAPE_SIZE, _FINE, SHAPE_SIZE, _FINE).mean(axis=(1, 3))


SHAPES = {shape: _covered(shape) for shape in ("circle", "square", "triangle")}


@dataclass(frozen=True, kw_only=True)
class Motion:
    """A shape, its colour, where it moves, and the row and column of its corner at first."""

    shape: str
    colour: str
    direction: str
    row: int
    column: int

    @property
    def key(self) -> str:
        """Name of the video; no two share one."""
        return f"{self.colour}-{self.shape}-{self.direction}-{self.row:02d}-{self.column:02d}"

    @property
    def caption(self) -> str:
        """Description of the video, which tells all but the place.

        The direction comes first: the tiny VLM's state at the last word of a caption says above all
        that an image follows, and hardly which word it was.
        """
        return f"{self.direction} moving {self.colour} {self.shape}"

    def frames(self) -> UInt8[np.ndarray, "t side side 3"]:
        """Return the pixels of the video."""
        down, right = DIRECTIONS[self.direction]
        alpha = np.zeros((FRAMES, SIZE, SIZE))
        for number, frame in enumerate(alpha):
            row, column = self.row + number * SPEED * down, self.column + number * SPEED * right
            frame[row : row + SHAPE_SIZE, column : column + SHAPE_SIZE] = SHAPES[self.shape]
        colour = np.array(COLOURS[self.colour])
        pixels = 255 - alpha[..., None] * (255 - colour)
        return pixels.round().astype(np.uint8)


def motions() -> Iterator[Motion]:
    """Yield everything that a video can show: shapes that stay inside their frames."""
    last, travel = SIZE - SHAPE_SIZE, (FRAMES - 1) * SPEED
    for colour in COLOURS:
        for shape in SHAPES:
            for direction, steps in DIRECTIONS.items():
                first_row, first_column = (travel * (step < 0) for step in steps)
                end_row, end_column = (last - travel * (step > 0) for step in steps)
                for row in range(first_row, end_row + 1):
                    for column in range(first_column, end_column + 1):
                        yield Motion(
                            shape=shape, colour=colour, direction=direction, row=row, column=column
                        )


_CAPTION = re.compile(
    rf"({'|'.join(DIRECTIONS)}) moving ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})"
)


def read_caption(caption: str) -> tuple[str, str, str] | None:
    """Return the colour, shape and direction that a caption names; None if it is of no video."""
    match = _CAPTION.fullmatch(caption)
    return None if match is None else (match[2], match[3], match[1])
