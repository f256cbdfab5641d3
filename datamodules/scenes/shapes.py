"""Coloured shapes, anti-aliased."""

import math
from functools import lru_cache
from typing import final

from PIL import Image, ImageDraw
from typing_extensions import override

from datamodules.scenes.look import Look, chosen
from datamodules.scenes.scene import RGB

PALETTE: dict[str, RGB] = {
    "red": (214, 33, 33),
    "green": (36, 152, 52),
    "blue": (38, 76, 214),
    "yellow": (242, 206, 22),
    "orange": (240, 122, 16),
    "purple": (132, 44, 178),
    "pink": (246, 120, 182),
    "black": (24, 24, 28),
}
"""Colours of shapes; grounds are pale (:mod:`datamodules.scenes.grounds`)."""

_OVERSAMPLING = 4

Outline = list[tuple[float, float]]
"""Corners in [-1, 1], y downwards, inside the unit circle."""


def _ring(corners: int, radii: tuple[float, ...] = (1.0,), turn: float = 0.0) -> Outline:
    return [
        (
            radii[i % len(radii)] * math.sin(2 * math.pi * i / corners + turn),
            -radii[i % len(radii)] * math.cos(2 * math.pi * i / corners + turn),
        )
        for i in range(corners)
    ]


def _heart() -> Outline:
    points = []
    for i in range(40):
        t = 2 * math.pi * i / 40
        across = 16 * math.sin(t) ** 3
        up = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((across / 17.5, -(up + 2.5) / 17.5))
    return points


_ARM, _END = 0.32, 0.94
OUTLINES: dict[str, Outline] = {
    "circle": [(0.86 * x, 0.86 * y) for x, y in _ring(48)],
    "square": _ring(4, turn=math.pi / 4),
    "triangle": _ring(3),
    "star": _ring(10, (1.0, 0.42)),
    "cross": [
        (-_ARM, -_END), (_ARM, -_END), (_ARM, -_ARM), (_END, -_ARM), (_END, _ARM), (_ARM, _ARM),
        (_ARM, _END), (-_ARM, _END), (-_ARM, _ARM), (-_END, _ARM), (-_END, -_ARM), (-_ARM, -_ARM),
    ],
    "heart": _heart(),
}  # fmt: skip


@final
class ColouredShapes(Look):
    """Shapes of one colour each.

    Args:
        kinds: Names of shapes, or so many of circle, square, triangle, star, cross, heart.
        colours: Names of colours, or so many of red, green, blue, yellow, orange, purple, pink,
            black.
        turned: Whether shapes stand at any angle.

    Raises:
        UserError: If there is no such shape or colour, or not so many.
    """

    least_pixels = 8

    def __init__(
        self,
        kinds: int | list[str] = 4,
        colours: int | list[str] = 4,
        turned: bool = False,
    ) -> None:
        self.kinds = chosen("kinds", kinds, list(OUTLINES))
        self.colours = {name: PALETTE[name] for name in chosen("colours", colours, list(PALETTE))}
        self.turned = turned

    @override
    def sprite(
        self, kind: str, colour: str | None, pixels: int, angle: float = 0.0
    ) -> tuple[RGB, Image.Image]:
        assert colour is not None
        return self.colours[colour], silhouette(kind, pixels, angle)


@lru_cache(maxsize=2048)  # upright ones come again and again
def silhouette(kind: str, pixels: int, angle: float) -> Image.Image:
    """Return the mask of a shape, of 8 bits, in a square of so many pixels."""
    half = pixels * _OVERSAMPLING / 2
    cos, sin = half * math.cos(angle), half * math.sin(angle)
    corners = [
        (half + cos * x - sin * y - 0.5, half + sin * x + cos * y - 0.5) for x, y in OUTLINES[kind]
    ]
    mask = Image.new("L", (pixels * _OVERSAMPLING,) * 2)
    ImageDraw.Draw(mask).polygon(corners, fill=255)
    return mask.reduce(_OVERSAMPLING)
