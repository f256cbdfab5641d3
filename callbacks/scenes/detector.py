"""Finds the objects of a scene in its picture: no training, templates are what the look draws."""

import math
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image
from scipy import ndimage

from callbacks.scenes.ground import Picture, find_parts, fit_ground
from datamodules.scenes.look import Look

_SIDE = 24
_DRAWN = 48
"""Pixels at which templates are drawn and compared."""
_BLURS = (0.5, 1.4)
_ANGLES = 48
_CANDIDATES = 6
_SHIFTS = (-0.05, 0.0, 0.05)
_SCALES = (0.87, 0.93, 1.0, 1.07)
_CERTAIN = 2.0
"""A kind is certain where the error of every other one is so many times as large."""
_NEAR = 3
"""Most pixels of 64 between parts that may be of one object."""
_MOST_PARTS = 8
LEAST_MATCH = 0.35
"""Least share of a template's own variation that an object explains; others are of no kind."""


LARGEST = 0.4
"""Share of the picture above which a part is no object; the largest square covers 0.27."""

Mask = Bool[np.ndarray, "side side"]


@dataclass(frozen=True, kw_only=True)
class FoundObject:
    """An object in a picture; lengths are shares of the picture's side, y goes down.

    Attributes:
        kind: Name of the most similar kind; None where none is similar.
        colour: Name of the nearest colour; None where kinds have colours of their own.
        x: Horizontal place of its centre.
        y: Vertical place of its centre.
    """

    kind: str | None
    colour: str | None
    x: float
    y: float


@dataclass(frozen=True, eq=False, kw_only=True)
class _Part:
    mask: Mask
    found: FoundObject
    error: float


class SceneDetector:
    """Finds the objects of scenes of a look.

    Args:
        look: Kinds and colours.
    """

    def __init__(self, look: Look) -> None:
        self._look = look
        self._palette = np.array(list(look.colours.values()), dtype=float).reshape(-1, 3) / 255
        self._kinds: list[str] = []
        templates = []
        angles = _ANGLES if look.turned else 1
        for kind in look.kinds:
            for number in range(angles):
                template = self._template(kind, 2 * math.pi * number / angles)
                for blur in _BLURS:
                    templates.append(ndimage.gaussian_filter(template, (blur, blur, 0)))
                    self._kinds.append(kind)
        # without colours of a palette: premultiplied colours and coverage; with one: coverage alone
        self._templates: Float[np.ndarray, "templates side side channels"] = np.array(templates)

    def _template(self, kind: str, angle: float) -> Float[np.ndarray, "side side channels"]:
        colour = next(iter(self._look.colours), None)
        shown, mask = self._look.sprite(kind, colour, _DRAWN, angle)
        covered = np.asarray(mask, dtype=float)[..., None] / 255
        rgb = shown if isinstance(shown, Image.Image) else Image.new("RGB", mask.size, shown)
        layers = np.concatenate([np.asarray(rgb, dtype=float) / 255 * covered, covered], 2)
        x, y, side = _square(covered[..., 0] > 0.5)
        square = _cut(layers, x, y, side)
        return square[..., 3:] if self._look.colours else square

    def __call__(self, image: Float[np.ndarray, "3 side side"]) -> list[FoundObject]:
        """Return the objects of an image in [-1, 1]."""
        picture: Picture = (np.moveaxis(image, 0, 2).astype(float) + 1) / 2
        ground = fit_ground(picture)
        masks = find_parts(picture, ground)
        parts = [part for mask in masks if (part := self._part(picture, ground, mask))]
        # one object may be in parts, where it is as pale as the ground
        pairs = combinations(list(parts), 2) if len(parts) <= _MOST_PARTS else ()
        for one, other in pairs:
            if one in parts and other in parts and _are_near(one.mask, other.mask):
                both = self._part(picture, ground, one.mask | other.mask)
                if both and both.error < min(one.error, other.error):
                    parts = [part for part in parts if part not in (one, other)] + [both]
        return [part.found for part in parts]

    def _part(self, picture: Picture, ground: Picture, mask: Mask) -> "_Part | None":
        """Return a part; None for a mere shade, no pixel of which is half covered by a colour."""
        colour, layers, inner = None, picture, mask
        if self._look.colours:
            place = self._nearest_colour(picture, mask)
            colour = list(self._look.colours)[place]
            layers = _coverage(picture, ground, self._palette[place]) * _with_edge(mask)
            covered: Mask = layers[..., 0] > 0.5  # however soft the edge is
            if not covered.any():
                return None
            inner = covered
        x, y, side = _square(inner)
        kind, error = self._kind(layers, ground, (x, y, side))
        size, is_small = len(picture), mask.mean() <= LARGEST
        named = kind if error < 1 - LEAST_MATCH and is_small else None
        found = FoundObject(kind=named, colour=colour, x=x / size, y=y / size)
        return _Part(mask=mask, found=found, error=error)

    def _nearest_colour(self, picture: Picture, mask: Mask) -> int:
        inner = ndimage.binary_erosion(mask)
        pixels = picture[inner if inner.any() else mask]
        distances = np.abs(np.median(pixels, 0) - self._palette).sum(1)
        return int(distances.argmin())

    def _kind(self, layers: np.ndarray, ground: Picture, square: "Square") -> tuple[str, float]:
        """Return the kind of the most similar template, and its error."""
        first = self._errors(layers, ground, square, np.arange(len(self._templates)))
        best = np.argsort(first)
        kind, least = self._kinds[best[0]], float(first[best[0]])
        others = (float(first[i]) for i in best if self._kinds[i] != kind)
        if next(others, 1.0) > _CERTAIN * least:
            return kind, least
        # the edge of a blurred object is in doubt: the square is tried a little aside, and larger
        x, y, side = square
        for across, down, scale in product(_SHIFTS, _SHIFTS, _SCALES):
            moved = (x + across * side, y + down * side, side * scale)
            errors = self._errors(layers, ground, moved, best[:_CANDIDATES])
            if errors.min() < least:
                least, kind = float(errors.min()), self._kinds[best[errors.argmin()]]
        return kind, least

    def _errors(
        self, layers: np.ndarray, ground: Picture, square: "Square", which: np.ndarray
    ) -> Float[np.ndarray, " templates"]:
        """Return the squared error of templates over that of the ground alone."""
        shown, templates = _cut(layers, *square), self._templates[which]
        if self._look.colours:
            behind = np.zeros((1, 1, 1))
            drawn = templates
        else:
            behind = _cut(ground, *square)
            drawn = templates[..., :3] + (1 - templates[..., 3:]) * behind
        errors = ((drawn - shown) ** 2).sum((1, 2, 3))
        without = ((drawn - behind) ** 2).sum((1, 2, 3))
        result: Float[np.ndarray, " templates"] = errors / np.maximum(without, 1e-6)
        return result


Square = tuple[float, float, float]
"""Centre and side in pixels."""


def _square(mask: Mask) -> Square:
    """Return the square around a mask, by its bounding box."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    side = max(bottom - top, right - left)
    return float(left + right) / 2, float(top + bottom) / 2, float(side)


def _cut(layers: np.ndarray, x: float, y: float, side: float) -> np.ndarray:
    """Return a square resized, with what lies outside of the picture continued."""
    step = side / _SIDE
    smooth = ndimage.gaussian_filter(layers, (step / 3, step / 3, 0)) if step > 1.5 else layers
    places = (np.arange(_SIDE) + 0.5) * step - side / 2 - 0.5
    rows, columns = np.meshgrid(y + places, x + places, indexing="ij")
    channels = [
        ndimage.map_coordinates(smooth[..., i], (rows, columns), order=1, mode="nearest")
        for i in range(layers.shape[2])
    ]
    return np.stack(channels, 2)


def _coverage(picture: Picture, ground: Picture, colour: np.ndarray) -> np.ndarray:
    """Return how much of each pixel an object of a colour covers, one channel in [0, 1]."""
    span = colour - ground
    # nothing where the ground is of the very colour
    share = ((picture - ground) * span).sum(2) / np.maximum((span**2).sum(2), 1e-6)
    covered: np.ndarray = share.clip(0, 1)[..., None]
    return covered


def _with_edge(mask: Mask) -> np.ndarray:
    """Return a mask with its edge: other objects do not count."""
    grown: np.ndarray = ndimage.binary_dilation(mask)[..., None]
    return grown


def _are_near(one: Mask, other: Mask) -> bool:
    """Tell whether so few pixels lie between two masks that they may be parts of one object."""
    reach = max(1, round(_NEAR * len(one) / 64))
    return bool((ndimage.binary_dilation(one, np.ones((3, 3)), iterations=reach) & other).any())
