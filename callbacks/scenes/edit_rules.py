"""Whether an image is what an edit asks for, by the objects that are found in it."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from callbacks.scenes.detector import FoundObject, SceneDetector
from callbacks.scenes.rules import stands
from datamodules.scenes.edits import Edit, EditedScene, Objects
from datamodules.scenes.look import Look, box
from datamodules.scenes.placing import GAP
from datamodules.scenes.scene import SceneObject

NEAR = 0.08
"""Most that an object is off its place, as a share of the picture's side; moved ones go 0.15."""
_DRAWN = 48

ImageArray = Float[np.ndarray, "3 side side"]


@dataclass(frozen=True, kw_only=True)
class EditVerdict:
    """Verdict on an edited image.

    Attributes:
        done: What was asked for is there, and as many of the kinds and colours that it concerns as
            there must be.
        kept: Every other object is where it was, and no more have come; None if there is no other.
        copied: The objects are those before the edit.
        distance: Mean absolute difference of channels, in [0, 1], from the image before, outside of
            the squares of what is edited.
    """

    done: bool
    kept: bool | None
    copied: bool
    distance: float


class EditJudge:
    """Judges edited images of a look.

    Args:
        look: Kinds and colours.
    """

    def __init__(self, look: Look) -> None:
        self._look = look
        self._detector = SceneDetector(look)

    def __call__(self, image: ImageArray, source: ImageArray, scene: EditedScene) -> EditVerdict:
        """Return the verdict on an image in [-1, 1], made from the one before the edit."""
        found = self._detector(image)
        before, after = self._seen(scene.before), self._seen(scene.after)
        kept = [one for one in before if one in after]
        gone = [one for one in before if one not in after]
        new = [one for one in after if one not in before]
        others = [one for one in found if not any(_is_at(one, other) for other in kept)]
        beside = _beside(scene.edit, before, gone)
        made = [_first(others, one, scene.edit, beside) for one in new]
        strange = [one for one in others if not any(_is_near(one, place) for place in gone)]
        is_kept = _all_there(kept, found) and len(found) <= max(len(before), len(after))
        return EditVerdict(
            done=None not in made
            and _as_many(found, after, [*gone, *new])
            and not any(_is_near(one, place) for place in _left(gone, new) for one in found),
            kept=is_kept and len(strange) <= len(new) if kept else None,
            copied=len(found) == len(before) and _all_there(before, found),
            distance=_distance(image, source, _squares(scene, made)),
        )

    def _seen(self, objects: Objects) -> list[FoundObject]:
        """Return objects as they are found in their own picture: by the middle of what shows."""
        return [self._seen_object(one) for one in objects]

    def _seen_object(self, one: SceneObject) -> FoundObject:
        _, mask = self._look.sprite(one.kind, one.colour, _DRAWN, one.angle)
        rows, columns = (np.flatnonzero((np.asarray(mask) > 127).any(axis)) for axis in (1, 0))
        x, y = (float(line[0] + line[-1] + 1) / 2 / _DRAWN - 0.5 for line in (columns, rows))
        return FoundObject(
            kind=one.kind, colour=one.colour, x=one.x + x * one.size, y=one.y + y * one.size
        )


def _beside(
    edit: Edit, before: Sequence[FoundObject], gone: Sequence[FoundObject]
) -> FoundObject | None:
    """Return that of which an object must stand in a direction, if any."""
    if edit.direction is None:
        return None
    return gone[0] if edit.reference is None else before[edit.reference]


def _first(
    found: Sequence[FoundObject], wanted: FoundObject, edit: Edit, beside: FoundObject | None
) -> FoundObject | None:
    """Return a found object that is the wanted one, at its place where that is known."""
    for one in found:
        if _name(one) != _name(wanted):
            continue
        if edit.edit_type not in ("add", "move"):
            if _is_near(one, wanted):
                return one
        elif beside is None or (edit.direction and stands(one, beside, edit.direction)):
            return one
    return None


def _as_many(
    found: Sequence[FoundObject], after: Sequence[FoundObject], named: Sequence[FoundObject]
) -> bool:
    """Tell whether there are as many objects of some kinds and colours as there must be."""
    counts, wanted = (Counter(map(_name, objects)) for objects in (found, after))
    return all(counts[name] == wanted[name] for name in map(_name, named))


def _left(gone: Sequence[FoundObject], new: Sequence[FoundObject]) -> list[FoundObject]:
    """Return what leaves its place empty."""
    return [one for one in gone if not any(_is_near(one, other) for other in new)]


def _all_there(wanted: Sequence[FoundObject], found: Sequence[FoundObject]) -> bool:
    return all(any(_is_at(one, other) for one in found) for other in wanted)


def _is_at(one: FoundObject, other: FoundObject) -> bool:
    return _name(one) == _name(other) and _is_near(one, other)


def _is_near(one: FoundObject, other: FoundObject) -> bool:
    return math.hypot(one.x - other.x, one.y - other.y) <= NEAR


def _name(one: FoundObject) -> tuple[str | None, str | None]:
    return one.kind, one.colour


def _squares(scene: EditedScene, made: Sequence[FoundObject | None]) -> Objects:
    """Return the objects that are edited; those that are made at any place where they are found."""
    gone = [one for one in scene.before if one not in scene.after]
    new = [one for one in scene.after if one not in scene.before]
    placed = [
        replace(one, x=there.x, y=there.y) if there else one
        for one, there in zip(new, made, strict=True)
    ]
    return (*gone, *new, *placed)


def _distance(image: ImageArray, source: ImageArray, edited: Objects) -> float:
    outside = np.ones(image.shape[1:], dtype=bool)
    for one in edited:
        x, y, side = box(replace(one, size=one.size + 2 * GAP), len(outside))
        outside[max(y, 0) : y + side, max(x, 0) : x + side] = False
    return float(np.abs(image - source)[:, outside].mean()) / 2
