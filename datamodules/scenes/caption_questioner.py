"""Questions about a scene that its caption alone answers."""

from collections import Counter
from typing import final

from typing_extensions import override

from datamodules.scenes.captions import CaptionReader
from datamodules.scenes.description import Described, Description
from datamodules.scenes.look import Look
from datamodules.scenes.questions import (
    ask_colour,
    ask_count,
    ask_exist,
    ask_relation,
    names_of,
)
from datamodules.scenes.scene import OPPOSITE
from pretzel.errors import UserError
from pretzel.sequence.caption_questioner import CaptionQuestioner

MOST_ABSENT = 3
"""Kinds that are asked for although they are not there, which tells objects too many."""


@final
class SceneCaptionQuestioner(CaptionQuestioner):
    """Asks for all that captions of :class:`datamodules.Scenes` say, each thing once.

    How many there are of each kind that is named, and of the next three of the look, of which
    there are none; what colour a kind has, or whether there is one of the colour where the kind is
    named in several; and of each place whether it is so, and whether the opposite is.

    Args:
        look: The look of the data.
    """

    def __init__(self, look: Look) -> None:
        self.look = look
        self._read = CaptionReader(look)

    @override
    def __call__(self, caption: str) -> list[tuple[str, str]]:
        try:
            description = self._read(caption)
        except UserError:
            return []
        kinds = Counter[str]()
        for one in description.objects:
            kinds[one.kind] += one.count
        absent = self._absent(description)
        counts = [(ask_count(kind), str(kinds[kind])) for kind in (*kinds, *absent)]
        colours = [
            (ask_colour(one.kind), one.colour)
            if kinds[one.kind] == 1
            else (ask_exist(one.kind, one.colour), "yes")
            for one in description.objects
            if one.colour is not None
        ]
        return [*counts, *colours, *_places(description)]

    def _absent(self, description: Description) -> list[str]:
        """Return kinds that are not named, those that follow the first that is."""
        kinds, named = self.look.kinds, {one.kind for one in description.objects}
        first = kinds.index(description.objects[0].kind)
        following = (*kinds[first:], *kinds[:first])
        return [kind for kind in following if kind not in named][:MOST_ABSENT]


def _places(description: Description) -> list[tuple[str, str]]:
    each: list[Described] = list(description.objects)
    names = names_of(each)
    asked = []
    for relation in description.relations:
        one, other = names[relation.subject], names[relation.reference]
        if one is not None and other is not None:  # else it is said of one of two alike
            asked.append((ask_relation(one, relation.direction, other), "yes"))
            asked.append((ask_relation(one, OPPOSITE[relation.direction], other), "no"))
    return asked
