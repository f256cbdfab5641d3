"""Captions: descriptions as sentences, and read again."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import final

from datamodules.scenes.description import Described, Description, Relation
from datamodules.scenes.look import Look
from datamodules.scenes.scene import DIRECTIONS, Direction, SceneObject
from datamodules.scenes.words import NUMBERS, phrase, plural, with_article
from pretzel.errors import UserError


def write_caption(description: Description) -> str:
    """Return a description in words.

    Such as ``two whales``, ``an orange circle and a red star``, ``a frog left of a whale``, or ``a
    red circle, a blue star above the red circle, and a red star below the blue star``.
    """
    parts = [_named(one) for one in description.objects]
    later = set[int]()
    for relation in description.relations:
        other = description.objects[relation.reference]
        if relation.reference > relation.subject:  # named with the relation, for the first time
            later.add(relation.reference)
            where = _named(other)
        else:
            where = f"the {phrase(other.kind, other.colour)}"
        parts[relation.subject] += f" {relation.direction} {where}"
    return _listed([part for place, part in enumerate(parts) if place not in later])


def describe_objects(objects: Sequence[SceneObject]) -> str:
    """Return what there is in words, from left to right, those that look alike together."""
    ordered = sorted(objects, key=lambda one: one.x)
    counts = Counter((one.kind, one.colour) for one in ordered)
    described = [Described(kind=k, colour=c, count=n) for (k, c), n in counts.items()]
    return write_caption(Description(objects=tuple(described)))


def _named(one: Described) -> str:
    if one.count > 1:
        return f"{NUMBERS[one.count]} {phrase(plural(one.kind), one.colour)}"
    return with_article(phrase(one.kind, one.colour))


def _listed(parts: Sequence[str]) -> str:
    if len(parts) < 3:
        return " and ".join(parts)
    return ", ".join([*parts[:-1], f"and {parts[-1]}"])


@final
class CaptionReader:
    """Reads captions of one look.

    Args:
        look: Its kinds and colours are known.
    """

    def __init__(self, look: Look) -> None:
        self._singular = {plural(kind): kind for kind in look.kinds}
        kinds = _either([*look.kinds, *self._singular])
        colour = f"(?:({_either(look.colours)}) )?" if look.colours else "()"
        numbers = _either(["an?", *NUMBERS.values()], plain=False)
        self._pattern = re.compile(
            rf"({numbers}) {colour}({kinds})"
            rf"(?: ({_either(DIRECTIONS)}) (an?|the) {colour}({kinds}))?"
        )
        self._look = look

    def __call__(self, caption: str) -> Description:
        """Return what a caption says.

        Raises:
            UserError: If it is none of this world, or names an object that is not there.
        """
        objects: list[Described] = []
        relations: list[Relation] = []
        for part in re.split(r", and |, | and ", caption.strip().rstrip(".").lower()):
            match = self._pattern.fullmatch(part)
            if match is None:
                raise self._unreadable(caption, f"{part!r}")
            number, colour, kind, direction, article, other_colour, other_kind = match.groups()
            count = next((n for n, word in NUMBERS.items() if word == number), 1)
            if (count > 1) != (kind in self._singular) and self._singular.get(kind) != kind:
                raise self._unreadable(caption, f"{number} {kind!r}")
            objects.append(self._described(colour, kind, count))
            if direction is None:
                continue
            subject, other = len(objects) - 1, self._described(other_colour, other_kind, 1)
            if article != "the":
                objects.append(other)
                reference = subject + 1
            elif other in objects[:subject]:
                reference = objects.index(other)
            else:
                raise self._unreadable(caption, f"'the {phrase(other.kind, other.colour)}'")
            relations.append(
                Relation(subject=subject, direction=_direction(direction), reference=reference)
            )
        return Description(objects=tuple(objects), relations=tuple(relations))

    def _described(self, colour: str | None, kind: str, count: int) -> Described:
        singular = kind if kind in self._look.kinds else self._singular[kind]
        return Described(kind=singular, colour=colour or None, count=count)

    def _unreadable(self, caption: str, part: str) -> UserError:
        return UserError(
            f"the caption {caption!r} is none of these scenes ({part} cannot be read): it must be "
            f"such as {with_article(self._look.kinds[0])!r}, "
            f"'two {plural(self._look.kinds[-1])}', with kinds and colours of the look"
        )


def _either(words: Iterable[str], *, plain: bool = True) -> str:
    longest_first = sorted(words, key=len, reverse=True)
    return "|".join(re.escape(word) if plain else word for word in longest_first)


def _direction(text: str) -> Direction:
    return next(direction for direction in DIRECTIONS if direction == text)
