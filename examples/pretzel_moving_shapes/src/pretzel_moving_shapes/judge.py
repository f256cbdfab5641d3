"""Tells colour, shape and direction of motion of a video, without anything trained.

Colour, by the hue of all that is not white; motion, by the centre of that in each frame; shape, by
the overlap of the frames, laid over each other along the motion, with the shapes themselves.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from pretzel_moving_shapes.world import COLOURS, DIRECTIONS, SHAPE_SIZE, SHAPES

_LEAST = 0.25
"""Share of a shape's mass that a frame must hold to show one."""
_STRAIGHT = 0.35
"""A motion is straight if its other axis moves less than this share of it."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """Appearance of a video; ``none`` where there is no colour, shape or straight motion.

    ``steady``: whether each frame shows about as much of a shape as the others, and all move on.
    """

    colour: str
    shape: str
    direction: str
    steady: bool


def look(video: Float[np.ndarray, "t 3 side side"]) -> Look:
    """Judge a video in [-1, 1]."""
    ink = np.clip((1 - video) / 2, 0, 1)  # 0 where white
    amount = ink.max(axis=1)
    amount = np.where(amount > 0.15, amount, 0)  # faint noise is ground
    mass = amount.sum(axis=(1, 2))
    full = max(covered.sum() for covered in SHAPES.values())
    if (mass < _LEAST * full).any():
        return Look(colour="none", shape="none", direction="none", steady=False)
    centres = np.stack([_centre(frame) for frame in amount])
    steps = np.diff(centres, axis=0)
    direction = _direction(centres[-1] - centres[0])
    along = steps @ np.array(DIRECTIONS.get(direction, (0, 0)))
    steady = mass.max() < 1.5 * mass.min() and bool((along > 0.3).all())
    total = (ink * (amount > 0)[:, None]).sum(axis=(0, 2, 3))
    return Look(
        colour=_nearest(total, {name: 1 - np.array(rgb) / 255 for name, rgb in COLOURS.items()}),
        shape=_shape(amount, centres),
        direction=direction,
        steady=steady,
    )


def _centre(frame: Float[np.ndarray, "side side"]) -> Float[np.ndarray, " 2"]:
    rows, columns = np.indices(frame.shape)
    return np.array([(rows * frame).sum(), (columns * frame).sum()]) / frame.sum()


def _direction(moved: Float[np.ndarray, " 2"]) -> str:
    main = int(abs(moved).argmax())
    if abs(moved[main]) < 2 or abs(moved[1 - main]) > _STRAIGHT * abs(moved[main]):
        return "none"
    step = np.zeros(2)
    step[main] = np.sign(moved[main])
    return next(name for name, one in DIRECTIONS.items() if tuple(step) == one)


def _shape(amount: Float[np.ndarray, "t side side"], centres: Float[np.ndarray, "t 2"]) -> str:
    """Return the shape that the frames, each moved to its centre, overlap with most."""
    padded = np.pad(amount, ((0, 0), (SHAPE_SIZE, SHAPE_SIZE), (SHAPE_SIZE, SHAPE_SIZE)))
    scores = {}
    for name, covered in SHAPES.items():
        corners = np.rint(centres - _centre(covered)).astype(int) + SHAPE_SIZE
        cut = [
            frame[row : row + SHAPE_SIZE, column : column + SHAPE_SIZE]
            for frame, (row, column) in zip(padded, corners, strict=True)
        ]
        mean = np.mean(cut, axis=0)
        scores[name] = float(((mean / mean.max() - covered) ** 2).sum())
    return min(scores, key=scores.__getitem__)


def _nearest(ink: Float[np.ndarray, " 3"], colours: dict[str, Float[np.ndarray, " 3"]]) -> str:
    """Return the colour whose ink has the most similar direction."""
    unit = ink / np.linalg.norm(ink)
    return max(colours, key=lambda name: unit @ colours[name] / np.linalg.norm(colours[name]))
