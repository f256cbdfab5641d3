"""Chains of edits: scenes, and the instructions that lead from each to the next."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from datamodules.scenes.captions import write_caption
from datamodules.scenes.composing import ComposedScene
from datamodules.scenes.edits import Edit, EditType, Objects, edited, place_of
from datamodules.scenes.held_out import Axis, HeldOut
from datamodules.scenes.look import Look
from datamodules.scenes.placing import SIZES, Place, choose_place, is_free
from datamodules.scenes.references import references
from datamodules.scenes.scene import Direction, Scene, SceneObject, clear_direction
from datamodules.scenes.words import phrase, with_article
from pretzel.errors import UserError

MAKES_NEW: tuple[EditType, ...] = ("colour", "kind", "add")
"""Edits that bring about what is held out; of others what is new was there before."""
LEAST_MOVE = 0.15
"""Least distance that an object is moved, as a share of the picture's side."""
_WAYS: dict[Direction, str] = {
    "left of": "to the left",
    "right of": "to the right",
    "above": "up",
    "below": "down",
}
_TRIES = 12
"""Tries to find an edit of a type, and places for it."""
_REFERS_BACK, _GOES_ON = 0.5, 0.3
"""How often an object is called by what was said before, and an instruction begins with "now"."""


@dataclass(frozen=True, kw_only=True)
class EditChain:
    """Scenes on one ground, the edits between them, and the caption of the first."""

    caption: str
    scenes: tuple[Scene, ...]
    edits: tuple[Edit, ...]


@dataclass(frozen=True, kw_only=True)
class _Step:
    """An edit that can be made, and what comes of it."""

    edit: Edit
    after: Objects
    touched: SceneObject | None  # which the next instruction may call "it"


class Editor:
    """Makes chains of edits.

    Args:
        look: Kinds and colours.
        held_out: Its held-out combinations.
        max_objects: Most objects of a scene.
    """

    def __init__(self, look: Look, held_out: HeldOut, max_objects: int) -> None:
        self._look = look
        self._held_out = held_out
        self._max_objects = max_objects

    def can(self, edit_type: EditType) -> bool:
        """Tell whether there are enough objects, kinds and colours for an edit."""
        return {
            "colour": len(self._look.colours) > 1,
            "kind": len(self._look.kinds) > 1,
            "swap": self._max_objects > 1 and len(self._look.kinds) + len(self._look.colours) > 2,
            "add": self._max_objects > 1,
            "remove": self._max_objects > 1,
        }.get(edit_type, True)

    def __call__(
        self, start: ComposedScene, types: Sequence[EditType], choices: Random, *, is_held_out: bool
    ) -> EditChain | None:
        """Return a chain of edits of these types; None if one of them cannot be made.

        What is held out is in no scene, but in the last one if ``is_held_out``.
        """
        scenes, edits = [start.scene.objects], list[Edit]()
        touched: SceneObject | None = None
        for number, edit_type in enumerate(types):
            is_new = is_held_out and number == len(types) - 1
            maker = _EditMaker(self._look, self._max_objects, scenes, touched, choices)
            for _ in range(_TRIES):
                step = maker(edit_type)
                if step and bool(self._axes(step.after)) == is_new:
                    break
            else:
                return None
            edit, touched = step.edit, step.touched
            if edits and choices.random() < _GOES_ON:
                edit = replace(edit, instruction=f"now {edit.instruction}")
            scenes.append(step.after)
            edits.append(edit)
        return EditChain(
            caption=write_caption(start.description),
            scenes=tuple(replace(start.scene, objects=objects) for objects in scenes),
            edits=tuple(edits),
        )

    def _axes(self, objects: Objects) -> frozenset[Axis]:
        return self._held_out.axes((one.kind, one.colour) for one in objects)


class _EditMaker:
    """Proposes edits of the last of some scenes, at random; None where one cannot be made."""

    def __init__(
        self,
        look: Look,
        max_objects: int,
        scenes: Sequence[Objects],
        touched: SceneObject | None,
        choices: Random,
    ) -> None:
        self._look = look
        self._max_objects = max_objects
        self._scenes = scenes
        self._objects = scenes[-1]
        self._touched = touched if touched in self._objects else None
        self._names = references(self._objects)
        self._choices = choices

    def __call__(self, edit_type: EditType) -> _Step | None:
        makers: dict[EditType, Callable[[], _Step | None]] = {
            "colour": self._colour,
            "kind": self._kind,
            "add": self._add,
            "remove": self._remove,
            "move": self._move,
            "swap": self._swap,
            "undo": self._undo,
        }
        return makers[edit_type]()

    def _colour(self) -> _Step | None:
        number, name = self._one()
        one = self._objects[number]
        colour = self._choices.choice([c for c in self._look.colours if c != one.colour])
        edit = Edit(edit_type="colour", instruction=f"make {name} {colour}")
        return self._step(edit, {number: replace(one, colour=colour)}) if name else None

    def _kind(self) -> _Step | None:
        number, name = self._one()
        one = self._objects[number]
        kind = self._choices.choice([k for k in self._look.kinds if k != one.kind])
        edit = Edit(edit_type="kind", instruction=f"turn {name} into {with_article(kind)}")
        return self._step(edit, {number: replace(one, kind=kind)}) if name else None

    def _remove(self) -> _Step | None:
        number, name = self._one()
        edit = Edit(edit_type="remove", instruction=f"remove {name}")
        is_left = len(self._objects) > 1
        return self._step(edit, {number: None}) if name and is_left else None

    def _add(self) -> _Step | None:
        if len(self._objects) == self._max_objects:
            return None
        again = self._touched if self._refers_back() else None
        kind = again.kind if again else self._choices.choice(self._look.kinds)
        colours: Sequence[str | None] = tuple(self._look.colours) or (None,)
        colour = again.colour if again else self._choices.choice(colours)
        angle = self._choices.uniform(0.0, math.tau) if self._look.turned else 0.0
        size = self._choices.uniform(*SIZES[len(self._objects) + 1])
        is_there = any((one.kind, one.colour) == (kind, colour) for one in self._objects)
        named = phrase(kind, colour)
        words = "another" if again else f"another {named}" if is_there else with_article(named)
        reference, its_name = self._other(None)
        for x, y, _ in self._places(size, self._objects):
            new = SceneObject(kind=kind, colour=colour, x=x, y=y, size=size, angle=angle)
            if reference is None:
                return self._step(Edit(edit_type="add", instruction=f"add {words}"), {}, new)
            if direction := clear_direction(new, self._objects[reference]):
                edit = Edit(
                    edit_type="add",
                    instruction=f"add {words} {direction} {its_name}",
                    direction=direction,
                    reference=reference,
                )
                return self._step(edit, {}, new)
        return None

    def _move(self) -> _Step | None:
        number, name = self._one()
        if name is None:
            return None
        one = self._objects[number]
        reference, its_name = self._other(number)
        beside = one if reference is None else self._objects[reference]
        others = [other for other in self._objects if other is not one]
        line: tuple[float | None, float | None] = (None, None)
        if reference is None:  # to one side of where it stands
            line = (one.x, None) if self._choices.random() < 0.5 else (None, one.y)
        for x, y, _ in self._places(one.size, others, line):
            moved = replace(one, x=x, y=y)
            direction = clear_direction(moved, beside)
            if math.hypot(x - one.x, y - one.y) < LEAST_MOVE or direction is None:
                continue
            if reference is not None and direction == clear_direction(one, beside):
                continue  # it is there
            where = _WAYS[direction] if reference is None else f"{direction} {its_name}"
            edit = Edit(
                edit_type="move",
                instruction=f"move {name} {where}",
                direction=direction,
                reference=reference,
            )
            return self._step(edit, {number: moved})
        return None

    def _swap(self) -> _Step | None:
        if len(self._objects) == 1:
            return None
        first, second = self._choices.sample(range(len(self._objects)), 2)
        one, other = self._objects[first], self._objects[second]
        if not (self._names[first] and self._names[second]) or phrase(
            one.kind, one.colour
        ) == phrase(other.kind, other.colour):
            return None
        names = [self._choices.choice(self._names[number]) for number in (first, second)]
        edit = Edit(edit_type="swap", instruction=f"swap {' and '.join(names)}")
        changes = {
            first: replace(one, x=other.x, y=other.y),
            second: replace(other, x=one.x, y=one.y),
        }
        return self._step(edit, changes)

    def _undo(self) -> _Step | None:
        if len(self._scenes) == 1:
            return None
        edit = Edit(edit_type="undo", instruction="undo that")
        return _Step(edit=edit, after=self._scenes[-2], touched=None)

    def _step(
        self, edit: Edit, changes: Mapping[int, SceneObject | None], *added: SceneObject
    ) -> _Step | None:
        try:
            after = edited(self._objects, changes, added)
        except UserError:  # no room
            return None
        new = [one for one in after if one not in self._objects]
        return _Step(edit=edit, after=after, touched=new[0] if len(new) == 1 else None)

    def _one(self) -> tuple[int, str | None]:
        """Return a random object, and what it is called; None where nothing means it alone."""
        known = self._objects[0] if len(self._objects) == 1 else self._touched
        if known and self._refers_back():
            return self._objects.index(known), "it"
        number = self._choices.randrange(len(self._objects))
        names = self._names[number]
        return number, self._choices.choice(names) if names else None

    def _other(self, number: int | None) -> tuple[int | None, str]:
        """Return, half of the time, an object of which another one stands in a direction."""
        others = [i for i, names in enumerate(self._names) if names and i != number]
        if not others or self._choices.random() < 0.5:
            return None, ""
        other = self._choices.choice(others)
        return other, self._choices.choice(self._names[other])

    def _places(
        self,
        size: float,
        others: Sequence[SceneObject],
        line: tuple[float | None, float | None] = (None, None),
    ) -> Iterator[Place]:
        """Yield places that are free, some tries long; with a coordinate given, on that line."""
        taken = [place_of(other) for other in others]
        for _ in range(_TRIES):
            x, y, _ = choose_place(size, self._choices)
            place = (x if line[0] is None else line[0], y if line[1] is None else line[1], size)
            if is_free(place, taken):
                yield place

    def _refers_back(self) -> bool:
        return self._choices.random() < _REFERS_BACK
