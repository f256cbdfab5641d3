"""Grounds: pale colours, plain or fading softly into one another."""

from random import Random

from datamodules.scenes.scene import RGB

CELLS = 3
"""Colours along each side of a soft ground."""
_PALEST, _DARKEST = 0.97, 0.76
_TINT, _FADE = 0.05, 0.07


def choose_ground(choices: Random, *, soft: bool) -> tuple[RGB, ...]:
    """Return the colours of a ground, every channel in [165, 255], nearly grey."""
    grey = choices.uniform(_DARKEST, _PALEST)
    tint = [grey + choices.uniform(-_TINT, _TINT) for _ in range(3)]
    fades = [choices.uniform(-_FADE, _FADE) for _ in range(CELLS**2)] if soft else [0.0]
    return tuple(_colour(*(channel + fade for channel in tint)) for fade in fades)


def _colour(red: float, green: float, blue: float) -> RGB:
    red, green, blue = (min(max(channel, 0.65), 1.0) * 255 for channel in (red, green, blue))
    return round(red), round(green), round(blue)
