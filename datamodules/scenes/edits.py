"""Edits of scenes: some objects are exchanged, removed or added, all else stays as it is."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from datamodules.scenes.placing import Place, is_free
from datamodules.scenes.scene import Direction, SceneObject
from pretzel.errors import UserError

EditType = Literal["colour", "kind", "add", "remove", "move", "swap", "undo"]
EDIT_TYPES: tuple[EditType, ...] = get_args(EditType)

Objects = tuple[SceneObject, ...]


@dataclass(frozen=True, kw_only=True)
class Edit:
    """An instruction, and as much of what it asks for as the scenes around it do not say.

    Attributes:
        edit_type: Kind of the edit.
        instruction: The edit in words.
        direction: Where an object that is added or moved must stand; None if that is not said.
        reference: Number of the object, in the scene before, of which it must stand there; None
            for the place where it stood itself.
    """

    edit_type: EditType
    instruction: str
    direction: Direction | None = None
    reference: int | None = None


def place_of(one: SceneObject) -> Place:
    """Return where an object stands."""
    return one.x, one.y, one.size


def edited(
    objects: Sequence[SceneObject],
    changes: Mapping[int, SceneObject | None],
    added: Sequence[SceneObject] = (),
) -> Objects:
    """Return objects some of which are exchanged, removed or added; the others stay in order.

    Args:
        objects: Objects of a scene.
        changes: Objects that take the place of others by their number, None to remove one.
        added: Objects that come behind them.

    Raises:
        UserError: If there is no object of a number, or no room for what is exchanged or added.
    """
    for number in changes:
        if number not in range(len(objects)):
            raise UserError(
                f"changes must be of objects that are there, from 0 to {len(objects) - 1}, not of "
                f"{number}"
            )
    changed = (changes.get(number, one) for number, one in enumerate(objects))
    after = [*(one for one in changed if one is not None), *added]
    new = [one for one in after if one not in objects]
    for one in new:
        if not is_free(place_of(one), (place_of(other) for other in after if other is not one)):
            raise UserError(
                f"there must be room for every object, but none is at ({one.x:.2f}, {one.y:.2f}) "
                f"for a {one.kind} of size {one.size:.2f}"
            )
    return tuple(after)


def untouched(before: Sequence[SceneObject], after: Sequence[SceneObject]) -> list[int]:
    """Return the numbers of the objects of a scene that an edit leaves as they are."""
    return [number for number, one in enumerate(before) if one in after]


@dataclass(frozen=True, kw_only=True)
class EditedScene:
    """The last edit of a document, with the objects before and after it."""

    edit: Edit
    before: Objects
    after: Objects


def write_truth(scenes: Sequence[Objects], edits: Sequence[Edit]) -> dict[str, Any]:
    """Return the objects at each image, and the edits between them, as values of JSON."""
    return {
        "scenes": [[asdict(one) for one in objects] for objects in scenes],
        "edits": [
            asdict(edit) | {"untouched": untouched(*scenes[number : number + 2])}
            for number, edit in enumerate(edits)
        ],
    }


def read_truth(truth: Mapping[str, Any]) -> EditedScene | None:
    """Return the last edit of a ground truth that :func:`write_truth` wrote; None of another."""
    try:
        before, after = (
            tuple(SceneObject(**one) for one in objects) for objects in truth["scenes"][-2:]
        )
        fields = {name: value for name, value in truth["edits"][-1].items() if name != "untouched"}
        return EditedScene(edit=Edit(**fields), before=before, after=after)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None
