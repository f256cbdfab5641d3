"""Descriptions of scenes, as captions give them, and the skills that it takes to follow them."""

from dataclasses import dataclass
from typing import Literal, get_args

from datamodules.scenes.scene import Direction

Skill = Literal["single", "two_objects", "counting", "colours", "position", "attribution", "dense"]
SKILLS: tuple[Skill, ...] = get_args(Skill)
"""GenEval's six tasks (Ghosh et al. 2023, arXiv 2310.11513), and dense captions."""


@dataclass(frozen=True, kw_only=True)
class Described:
    """Objects of one kind that are named together.

    Attributes:
        kind: Name of the kind.
        colour: Name of the colour, if it is said.
        count: How many.
    """

    kind: str
    colour: str | None = None
    count: int = 1


@dataclass(frozen=True, kw_only=True)
class Relation:
    """The place of a described object relative to another, both by their numbers."""

    subject: int
    direction: Direction
    reference: int


@dataclass(frozen=True, kw_only=True)
class Description:
    """All objects of a scene, with as much of them as is said."""

    objects: tuple[Described, ...]
    relations: tuple[Relation, ...] = ()

    @property
    def count(self) -> int:
        """Number of objects."""
        return sum(described.count for described in self.objects)

    @property
    def skill(self) -> Skill:
        """The skill that it takes to follow this description."""
        if len(self.objects) > 2:
            return "dense"
        if self.relations:
            return "position"
        if self.count > len(self.objects):
            return "counting"
        has_colour = self.objects[0].colour is not None
        if len(self.objects) == 2:
            return "attribution" if has_colour else "two_objects"
        return "colours" if has_colour else "single"
