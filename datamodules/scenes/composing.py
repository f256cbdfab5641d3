"""Composes scenes of a skill: what they hold, where, and the description that fits."""

from dataclasses import dataclass
from random import Random

from datamodules.scenes.description import Described, Description, Relation, Skill
from datamodules.scenes.grounds import choose_ground
from datamodules.scenes.held_out import AXES, HeldOut
from datamodules.scenes.look import Look
from datamodules.scenes.placing import choose_places
from datamodules.scenes.scene import Scene, SceneObject, clear_direction
from pretzel.errors import UserError

NEEDS: dict[Skill, tuple[int, int, int]] = {
    "single": (1, 1, 0),
    "two_objects": (2, 2, 0),
    "counting": (2, 1, 0),
    "colours": (1, 1, 1),
    "position": (2, 2, 0),
    "attribution": (2, 2, 2),
    "dense": (3, 2, 0),
}
"""Fewest objects, kinds and colours of each skill."""
_TRIES = 5000
_TURN = 6.283185307179586

Content = list[tuple[str, str | None]]
"""Kind and colour of each object."""


@dataclass(frozen=True, kw_only=True)
class ComposedScene:
    """A scene with the description that is its caption; objects stand in the order of both."""

    scene: Scene
    description: Description


class Composer:
    """Composes scenes.

    Args:
        look: Kinds and colours.
        max_objects: Most objects of a scene, from 1 to 4.
        soft_ground: Whether grounds fade from colour to colour.
    """

    def __init__(self, look: Look, max_objects: int, soft_ground: bool) -> None:
        self.held_out = HeldOut(look)
        self._look = look
        self._colours: tuple[str | None, ...] = tuple(look.colours) or (None,)
        self._max_objects = max_objects
        self._soft_ground = soft_ground

    def can(self, skill: Skill) -> bool:
        """Tell whether there are enough objects, kinds and colours for a skill."""
        objects, kinds, colours = NEEDS[skill]
        has = (self._max_objects, len(self._look.kinds), len(self._look.colours))
        return all(n >= needed for n, needed in zip(has, (objects, kinds, colours), strict=True))

    def __call__(self, skill: Skill, choices: Random, *, is_held_out: bool) -> ComposedScene:
        """Return a scene of a skill: one that training may show, or one with what is held out.

        Raises:
            UserError: If kinds and colours allow none.
        """
        content = self._content(skill, choices, is_held_out)
        while True:
            objects = self._placed(content, choices)
            description = _describe(skill, objects, choices)
            if description is not None:
                ground = choose_ground(choices, soft=self._soft_ground)
                scene = Scene(objects=objects, ground=ground)
                return ComposedScene(scene=scene, description=description)

    def _content(self, skill: Skill, choices: Random, is_held_out: bool) -> Content:
        for _ in range(_TRIES):
            content = self._propose(skill, choices)
            axes = self.held_out.axes(content)
            differ = skill != "dense" or len(set(content)) == len(content)
            if differ and axes <= AXES[skill] and bool(axes) == is_held_out:
                return content
        which = "held-out scene" if is_held_out else "scene"
        raise UserError(
            f"skills: no {which} of {skill} can be made of the kinds {', '.join(self._look.kinds)} "
            f"and the colours {', '.join(self._look.colours) or 'none'}: give more of them"
        )

    def _propose(self, skill: Skill, choices: Random) -> Content:
        kinds, colours = self._look.kinds, self._colours
        if skill in ("single", "colours"):
            return [(choices.choice(kinds), choices.choice(colours))]
        if skill == "counting":
            kind, count = choices.choice(kinds), 2 + choices.randrange(self._max_objects - 1)
            return [(kind, choices.choice(colours)) for _ in range(count)]
        if skill == "dense":
            count = 3 + choices.randrange(self._max_objects - 2)
            return [(choices.choice(kinds), choices.choice(colours)) for _ in range(count)]
        pair = choices.sample(kinds, 2)
        if skill == "attribution":
            return list(zip(pair, choices.sample(colours, 2), strict=True))
        return [(kind, choices.choice(colours)) for kind in pair]

    def _placed(self, content: Content, choices: Random) -> tuple[SceneObject, ...]:
        return tuple(
            SceneObject(
                kind=kind,
                colour=colour,
                x=x,
                y=y,
                size=size,
                angle=choices.uniform(0.0, _TURN) if self._look.turned else 0.0,
            )
            for (kind, colour), (x, y, size) in zip(
                content, choose_places(len(content), choices), strict=True
            )
        )


def _describe(
    skill: Skill, objects: tuple[SceneObject, ...], choices: Random
) -> Description | None:
    """Return the description of a skill, None where objects are in no clear relation to others."""
    if skill == "counting":
        return Description(objects=(Described(kind=objects[0].kind, count=len(objects)),))
    says_colour = skill in ("colours", "attribution", "dense")
    described = tuple(
        Described(kind=one.kind, colour=one.colour if says_colour else None) for one in objects
    )
    if skill not in ("position", "dense"):
        return Description(objects=described)
    relations = []
    for subject, one in enumerate(objects[:1] if skill == "position" else objects):
        if skill == "dense" and subject == 0:
            continue
        others = range(1, 2) if skill == "position" else range(subject)
        clear = {i: where for i in others if (where := clear_direction(one, objects[i]))}
        if not clear:
            return None
        reference = choices.choice(list(clear))
        relations.append(Relation(subject=subject, direction=clear[reference], reference=reference))
    return Description(objects=described, relations=tuple(relations))
