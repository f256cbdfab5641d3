"""Places of objects that do not overlap."""

from collections.abc import Iterable
from random import Random

SIZES = {1: (0.34, 0.52), 2: (0.30, 0.44), 3: (0.27, 0.36), 4: (0.25, 0.33)}
"""Smallest and largest side of an object, as shares of the picture's, by number of objects."""
GAP = 0.03
"""Least distance of objects, and from the edge, along one of the axes."""
_TRIES = 20

Place = tuple[float, float, float]
"""Horizontal and vertical place of a centre, and side of the square around it."""


def choose_places(count: int, choices: Random) -> list[Place]:
    """Return random places and sizes of so many objects, uniform among those without overlap."""
    low, high = SIZES[count]
    while True:
        places: list[Place] = []
        for _ in range(_TRIES):
            size = choices.uniform(low, high)
            place = choose_place(size, choices)
            if is_free(place, places):
                places.append(place)
                if len(places) == count:
                    return places


def choose_place(size: float, choices: Random) -> Place:
    """Return a random place in the picture, whatever stands there."""
    margin = size / 2 + GAP
    return choices.uniform(margin, 1 - margin), choices.uniform(margin, 1 - margin), size


def is_free(place: Place, others: Iterable[Place]) -> bool:
    """Tell whether a place is within the picture and away from other ones."""
    x, y, size = place
    if not size / 2 + GAP <= min(x, y, 1 - x, 1 - y):
        return False
    gaps = (max(abs(x - a), abs(y - b)) - (size + side) / 2 for a, b, side in others)
    return all(gap >= GAP for gap in gaps)
