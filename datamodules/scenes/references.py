"""How instructions refer to objects: by phrases that mean one object and no other."""

from collections import Counter
from collections.abc import Sequence

from datamodules.scenes.scene import Direction, SceneObject, clear_direction
from datamodules.scenes.words import phrase

_SIDES: dict[Direction, str] = {
    "left of": "on the left",
    "right of": "on the right",
    "above": "at the top",
    "below": "at the bottom",
}


def references(objects: Sequence[SceneObject]) -> list[list[str]]:
    """Return, for each object, all phrases that mean it alone; none where it has a double.

    Such as ``the circle``, ``the red circle``, ``the red one``, ``the one on the left`` and ``the
    circle at the top``, the last two where it is clearly on that side of all others of the name.
    """
    nouns = [_nouns(one, is_alone=len(objects) == 1) for one in objects]
    found = [[f"the {noun}" for noun in own] for own in nouns]
    for noun in dict.fromkeys(noun for own in nouns for noun in own):  # a set has no order
        group = [number for number, own in enumerate(nouns) if noun in own]
        for number in group if len(group) > 1 else ():
            others = [objects[other] for other in group if other != number]
            sides = {clear_direction(objects[number], other) for other in others}
            if len(sides) == 1 and (side := sides.pop()) is not None:
                found[number].append(f"the {noun} {_SIDES[side]}")
    counts = Counter(text for own in found for text in own)
    return [[text for text in own if counts[text] == 1] for own in found]


def _nouns(one: SceneObject, *, is_alone: bool) -> list[str]:
    nouns = [one.kind]
    if one.colour is not None:
        nouns.append(phrase(one.kind, one.colour))
    if not is_alone:
        nouns += ["one"] if one.colour is None else ["one", f"{one.colour} one"]
    return nouns
