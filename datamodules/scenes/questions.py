"""Questions about a scene, whose answers cannot be told without looking.

Of each type at most one is asked, chosen so that equal questions have all answers equally often, as
far as held-out combinations and the kinds of scenes allow.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from random import Random
from typing import Literal, get_args

from datamodules.scenes.description import Described, Skill
from datamodules.scenes.held_out import HeldOut
from datamodules.scenes.look import Look
from datamodules.scenes.scene import (
    DIRECTIONS,
    OPPOSITE,
    Direction,
    Scene,
    SceneObject,
    clear_direction,
)
from datamodules.scenes.words import phrase, plural, with_article

QuestionType = Literal["exist", "count", "colour", "kind", "relation", "comparison"]
QUESTION_TYPES: tuple[QuestionType, ...] = get_args(QuestionType)

_LARGER = 1.2
"""Least ratio of the sides of objects that are compared."""


@dataclass(frozen=True, kw_only=True)
class SceneQuestion:
    """A question with its answer."""

    question: str
    answer: str
    question_type: QuestionType


class Questioner:
    """Asks about scenes.

    Args:
        look: Kinds and colours.
        held_out: Its held-out combinations: of those alone that a scene may show it is asked.
        skills: Skills of the scenes, each equally frequent.
    """

    def __init__(self, look: Look, held_out: HeldOut, skills: Sequence[Skill]) -> None:
        self._look = look
        self._held_out = held_out
        # Of 0 and 1 as often as of 2, 3 and 4, which scenes of counting alone have.
        counting = skills.count("counting") / len(skills)
        self._asks_few = min(1.0, 2 / 3 * counting / (1 - counting)) if 0 < counting < 1 else 1.0

    def __call__(self, scene: Scene, choices: Random) -> list[SceneQuestion]:
        """Return the questions about a scene, at most one of each type."""
        objects, names = scene.objects, names_of(scene.objects)
        asked: dict[QuestionType, tuple[str, str] | None] = {
            "exist": self._exist(objects, choices),
            "count": self._count(objects, choices),
            "colour": self._colour(objects, choices),
            "kind": self._kind(objects, names, choices),
            "relation": self._relation(objects, names, choices),
            "comparison": self._comparison(objects, names, choices),
        }
        return [
            SceneQuestion(question=pair[0], answer=pair[1], question_type=name)
            for name, pair in asked.items()
            if pair is not None
        ]

    def _exist(self, objects: Sequence[SceneObject], choices: Random) -> tuple[str, str] | None:
        one = choices.choice(objects)
        says_colour = one.colour is not None and choices.random() < 0.5
        there = {(o.kind, o.colour if says_colour else None) for o in objects}
        if choices.random() < 0.5:
            return ask_exist(one.kind, one.colour if says_colour else None), "yes"
        for _ in range(20):
            colour = choices.choice(list(self._look.colours)) if says_colour else None
            kind = choices.choice(self._look.kinds)
            if (kind, colour) not in there and not self._held_out.axes([(kind, colour)]):
                return ask_exist(kind, colour), "no"
        return None

    def _count(self, objects: Sequence[SceneObject], choices: Random) -> tuple[str, str] | None:
        kinds = Counter(one.kind for one in objects)
        kind, count = kinds.most_common(1)[0]
        if count == 1 or len(kinds) > 1:
            if choices.random() >= self._asks_few:
                return None
            wanted = int(choices.random() < 0.5)
            few = [kind for kind in self._look.kinds if kinds[kind] == wanted]
            if not few:
                return None
            kind, count = choices.choice(few), wanted
        return ask_count(kind), str(count)

    def _colour(self, objects: Sequence[SceneObject], choices: Random) -> tuple[str, str] | None:
        kinds = Counter(one.kind for one in objects)
        single = [one for one in objects if kinds[one.kind] == 1 and one.colour is not None]
        if not single:
            return None
        one = choices.choice(single)
        return ask_colour(one.kind), str(one.colour)

    def _kind(
        self, objects: Sequence[SceneObject], names: Sequence[str | None], choices: Random
    ) -> tuple[str, str] | None:
        colours = Counter(one.colour for one in objects)
        single = [one for one in objects if one.colour is not None and colours[one.colour] == 1]
        if single:
            one = choices.choice(single)
            return f"what is the {one.colour} object?", one.kind
        if len(objects) == 1:
            return "what is in the picture?", objects[0].kind
        if len(objects) != 2 or None in names:  # of three, two may be on one side
            return None
        first = int(choices.random() < 0.5)
        where = clear_direction(objects[1 - first], objects[first])
        return where and (f"what is {where} the {names[first]}?", objects[1 - first].kind)

    def _relation(
        self, objects: Sequence[SceneObject], names: Sequence[str | None], choices: Random
    ) -> tuple[str, str] | None:
        pairs = [
            (one, other, where)
            for (i, one), (j, other) in permutations(enumerate(names), 2)
            if one and other and (where := clear_direction(objects[i], objects[j]))
        ]
        if not pairs:
            return None
        one, other, where = choices.choice(pairs)
        if choices.random() < 0.5:
            return ask_relation(one, where, other), "yes"
        # the opposite as often as both others: that is what a look at one axis cannot tell
        others = [d for d in DIRECTIONS if d not in (where, OPPOSITE[where])]
        wrong = choices.choice([OPPOSITE[where], OPPOSITE[where], *others])
        return ask_relation(one, wrong, other), "no"

    def _comparison(
        self, objects: Sequence[SceneObject], names: Sequence[str | None], choices: Random
    ) -> tuple[str, str] | None:
        pairs = [
            (i, j)
            for i, j in permutations(range(len(objects)), 2)
            if names[i] and names[j] and objects[i].size >= _LARGER * objects[j].size
        ]
        if not pairs:
            return None
        large, small = choices.choice(pairs)
        if choices.random() < 0.5:
            return f"is the {names[large]} larger than the {names[small]}?", "yes"
        return f"is the {names[small]} larger than the {names[large]}?", "no"


def ask_exist(kind: str, colour: str | None) -> str:
    """Return the question whether there is a kind, of a colour if one is given."""
    return f"is there {with_article(phrase(kind, colour))}?"


def ask_count(kind: str) -> str:
    """Return the question how many there are of a kind."""
    return f"how many {plural(kind)} are there?"


def ask_colour(kind: str) -> str:
    """Return the question what colour the only one of a kind has."""
    return f"what colour is the {kind}?"


def ask_relation(name: str, direction: Direction, other: str) -> str:
    """Return the question whether an object is in a direction of another, both by their names."""
    return f"is the {name} {direction} the {other}?"


def names_of(objects: Sequence[SceneObject | Described]) -> list[str | None]:
    """Return what each object is called behind "the"; None where another is called the same."""
    kinds = Counter(one.kind for one in objects)
    phrases = Counter((one.kind, one.colour) for one in objects)
    names: list[str | None] = []
    for one in objects:
        if kinds[one.kind] == 1:
            names.append(one.kind)
        elif phrases[one.kind, one.colour] == 1:
            names.append(phrase(one.kind, one.colour))
        else:
            names.append(None)
    return names
