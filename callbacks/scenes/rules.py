"""Whether the objects that were found are those of a description."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

from callbacks.scenes.detector import FoundObject
from datamodules.scenes.description import Described, Description
from datamodules.scenes.scene import Direction


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Those parts of a description that a picture shows rightly.

    Attributes:
        number: There are as many objects as there must be.
        kinds: They are of the right kinds, as many of each as there must be.
        colours: Among them are objects of the kinds and colours that are said; None if no colour
            is.
        relations: Objects of the right kinds stand where it is said; None if nothing is.
        right: All of it, of the same objects at once.
    """

    number: bool
    kinds: bool
    colours: bool | None
    relations: bool | None
    right: bool


def judge(description: Description, found: Sequence[FoundObject]) -> Verdict:
    """Return what of a description is right."""
    named = [one for one in description.objects for _ in range(one.count)]
    number = len(found) == len(named)
    kinds = Counter(one.kind for one in named) == Counter(one.kind for one in found)
    said = Counter((one.kind, one.colour) for one in named if one.colour is not None)
    colours = said <= Counter((one.kind, one.colour) for one in found) if said else None
    relations = _stand_so(description, found) if description.relations else None
    right = number and kinds and colours is not False and relations is not False
    return Verdict(number=number, kinds=kinds, colours=colours, relations=relations, right=right)


def _stand_so(description: Description, found: Sequence[FoundObject]) -> bool:
    """Tell whether some of the objects are those described, and stand as it is said."""
    # descriptions with relations name every object by itself
    return any(
        all(_is(one, said) for one, said in zip(chosen, description.objects, strict=True))
        and all(
            stands(chosen[relation.subject], chosen[relation.reference], relation.direction)
            for relation in description.relations
        )
        for chosen in permutations(found[:8], len(description.objects))
    )


def _is(one: FoundObject, said: Described) -> bool:
    return one.kind == said.kind and said.colour in (None, one.colour)


def stands(one: FoundObject, other: FoundObject, direction: Direction) -> bool:
    """Tell whether an object is in a direction of another: within 60 degrees of it, as GenEval."""
    across, down = one.x - other.x, one.y - other.y
    along = {"left of": -across, "right of": across, "above": -down, "below": down}[direction]
    return along > math.hypot(across, down) / 2
