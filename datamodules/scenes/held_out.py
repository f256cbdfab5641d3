"""Combinations that training never shows, so that what is new can be measured apart."""

from collections import Counter
from collections.abc import Iterable
from itertools import combinations
from typing import Literal

from datamodules.scenes.description import Description, Skill
from datamodules.scenes.look import Look

Axis = Literal["kind_colour", "kinds", "count"]
"""Kind of novelty: a kind in a colour, two kinds together, a number of a kind."""

AXES: dict[Skill, frozenset[Axis]] = {
    "single": frozenset(),
    "two_objects": frozenset({"kinds"}),
    "counting": frozenset({"count"}),
    "colours": frozenset({"kind_colour"}),
    "position": frozenset({"kinds"}),
    "attribution": frozenset({"kind_colour"}),
    "dense": frozenset({"kind_colour", "kinds"}),
}
"""Novelty in held-out scenes of each skill; a single kind never is."""
_FEWEST = 4
_FAR = 0.45

Content = Iterable[tuple[str, str | None]]
"""Kind and colour of each object."""


class HeldOut:
    """The held-out combinations of a look, by the places of its kinds and colours in their lists.

    Kind i in colour j is held out where i + j = 3 mod 4 (a quarter), kinds i and j together where
    they are more than 0.45 of the way around the circle of all kinds apart (a third of four, a
    tenth of many), and c of kind i, for c from 2 on, where i + c = 0 mod 4. Of fewer than four
    kinds or colours no kind in a colour and no pair is. Every kind, every colour, and every number
    is seen in training.

    Args:
        look: The look.
    """

    def __init__(self, look: Look) -> None:
        self._kinds = {kind: place for place, kind in enumerate(look.kinds)}
        self._new_colours = {
            (kind, colour)
            for i, kind in enumerate(look.kinds)
            for j, colour in enumerate(look.colours)
            if min(len(look.kinds), len(look.colours)) >= _FEWEST and (i + j) % 4 == 3
        }

    def possible(self, skill: Skill) -> bool:
        """Tell whether there are held-out scenes of a skill."""
        has = {
            "kinds": len(self._kinds) >= _FEWEST,
            "kind_colour": bool(self._new_colours),
            "count": True,
        }
        return any(has[axis] for axis in AXES[skill])

    def axes(self, content: Content) -> frozenset[Axis]:
        """Return what is new in a scene; nothing where training may show it."""
        content = list(content)
        counts = Counter(kind for kind, _ in content)
        total, axes = len(self._kinds), set[Axis]()
        if not self._new_colours.isdisjoint(content):
            axes.add("kind_colour")
        for one, other in combinations(counts, 2) if total >= _FEWEST else ():
            apart = abs(self._kinds[one] - self._kinds[other])
            if min(apart, total - apart) > _FAR * total:
                axes.add("kinds")
        if any(n > 1 and (self._kinds[kind] + n) % 4 == 0 for kind, n in counts.items()):
            axes.add("count")
        return frozenset(axes)

    def axes_of(self, description: Description) -> frozenset[Axis]:
        """Return what is new in a description."""
        described = description.objects
        return self.axes((one.kind, one.colour) for one in described for _ in range(one.count))
