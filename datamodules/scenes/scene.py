"""Scenes: what stands where, on which ground, free of any number of pixels."""

from dataclasses import dataclass
from typing import Literal, get_args

RGB = tuple[int, int, int]

Direction = Literal["left of", "right of", "above", "below"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
OPPOSITE: dict[Direction, Direction] = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
}
_CLEAR = 1.6
"""Least ratio of the two offsets of centres where a direction is stated in words."""


@dataclass(frozen=True, kw_only=True)
class SceneObject:
    """One object; lengths are shares of the side of the picture, y goes down.

    Attributes:
        kind: Name of its kind.
        colour: Name of its colour; None where kinds have colours of their own.
        x: Horizontal place of its centre.
        y: Vertical place of its centre.
        size: Side of the square that it stays within.
        angle: Turn, in radians.
    """

    kind: str
    colour: str | None
    x: float
    y: float
    size: float
    angle: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Objects that do not overlap, on a ground.

    Attributes:
        objects: The objects.
        ground: Colours of a square grid, row by row, between which the ground fades; one for a
            plain ground.
    """

    objects: tuple[SceneObject, ...]
    ground: tuple[RGB, ...]


def clear_direction(one: SceneObject, other: SceneObject) -> Direction | None:
    """Return where one object is as seen from the other; None where words would be in doubt."""
    across, down = one.x - other.x, one.y - other.y
    if abs(across) >= _CLEAR * abs(down):
        return "left of" if across < 0 else "right of"
    if abs(down) >= _CLEAR * abs(across):
        return "above" if down < 0 else "below"
    return None
