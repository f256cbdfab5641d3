"""The ground of a scene, and what stands on it."""

from functools import cache

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

_DEGREE = 3
_REACHES = (0.2, 0.12, 0.1, 0.09, 0.08, 0.08)
"""Largest difference of a channel from the surface at which a pixel counts, in each round."""
FOREGROUND = 0.08
"""Largest difference of a channel, in [0, 1], from the ground from which a pixel is an object's."""
SPECKLE = 0.006
"""Parts below this share of the picture are ignored; the smallest shape covers 0.015."""

Picture = Float[np.ndarray, "side side 3"]


@cache
def _terms(side: int) -> Float[np.ndarray, "pixels terms"]:
    """Return the products of powers of both coordinates, of every pixel."""
    axis = np.polynomial.legendre.legvander(np.linspace(-1, 1, side), _DEGREE)
    products = np.einsum("ya,xb->yxab", axis, axis)
    terms: Float[np.ndarray, "pixels terms"] = products.reshape(side * side, -1)
    return terms


def fit_ground(picture: Picture) -> Picture:
    """Return the smooth ground of a picture: cubic surfaces, fitted to what is near them.

    Pixels of objects are found out in rounds: those far from the surface of the last round do not
    count. The first one is the median of the edge.
    """
    side = len(picture)
    edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    pixels, terms = picture.reshape(-1, 3), _terms(side)
    surface = np.broadcast_to(np.median(edge, 0), pixels.shape)
    for reach in _REACHES:
        near = np.abs(pixels - surface).max(1) < reach
        if near.sum() < 0.2 * len(pixels):
            break
        # a little ridge: where objects hide a corner, the surface stays flat
        weighted = terms[near]
        gram = weighted.T @ weighted + 0.01 * near.sum() / len(pixels) * np.eye(terms.shape[1])
        surface = terms @ np.linalg.solve(gram, weighted.T @ pixels[near])
    return surface.reshape(side, side, 3)


def find_parts(picture: Picture, ground: Picture) -> list[Bool[np.ndarray, "side side"]]:
    """Return the mask of each connected part that is no ground, speckles left out."""
    mask = np.abs(picture - ground).max(2) > FOREGROUND
    labels, count = ndimage.label(ndimage.binary_fill_holes(mask), structure=np.ones((3, 3)))
    masks = (labels == label for label in range(1, count + 1))
    return [mask for mask in masks if mask.sum() >= SPECKLE * mask.size]
