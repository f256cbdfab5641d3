"""The contract of looks: which kinds and colours of objects there are, and how they are drawn."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from PIL import Image

from datamodules.scenes.scene import RGB, Scene, SceneObject
from pretzel.errors import UserError


class Look(ABC):
    """Kinds and colours of objects, and their pictures.

    Attributes:
        kinds: Names of the kinds.
        colours: Colours by name; empty where kinds have colours of their own.
        least_pixels: Fewest pixels of an object's side at which its kind can be told.
        turned: Whether objects stand at any angle, not upright.
    """

    no_laws: ClassVar[str] = "any picture serves; how well its objects are told apart, a judge says"

    kinds: tuple[str, ...]
    colours: Mapping[str, RGB]
    least_pixels: int
    turned: bool = False

    @abstractmethod
    def sprite(
        self, kind: str, colour: str | None, pixels: int, angle: float = 0.0
    ) -> tuple[Image.Image | RGB, Image.Image]:
        """Return what an object shows, a picture or one colour, and its mask of 8 bits.

        Args:
            kind: One of the kinds.
            colour: One of the colours; None where there are none.
            pixels: Side of the square that it fills.
            angle: Turn, in radians.
        """

    def render(self, scene: Scene, size: int) -> Image.Image:
        """Return the picture of a scene of these kinds, of so many pixels a side."""
        cells = round(len(scene.ground) ** 0.5)
        picture = Image.new("RGB", (cells, cells))
        picture.putdata(scene.ground)
        picture = picture.resize((size, size), Image.Resampling.BICUBIC)
        for one in scene.objects:
            left, top, pixels = box(one, size)
            shown, mask = self.sprite(one.kind, one.colour, pixels, one.angle)
            picture.paste(shown, (left, top, left + pixels, top + pixels), mask)
        return picture


def box(one: SceneObject, size: int) -> tuple[int, int, int]:
    """Return left edge, top edge and side of an object's square in pixels of a picture."""
    pixels = round(one.size * size)
    return round(one.x * size - pixels / 2), round(one.y * size - pixels / 2), pixels


def chosen(argument: str, wanted: int | Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Return names that are listed, or the first so many of the known ones.

    Raises:
        UserError: If there are none, not so many, or one is unknown or listed twice.
    """
    if isinstance(wanted, int):
        if not 1 <= wanted <= len(known):
            raise UserError(f"{argument} must be from 1 to {len(known)}, or names, not {wanted}")
        return tuple(known[:wanted])
    for name in wanted:
        if name not in known:
            shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
            raise UserError(f"{argument} must be some of {shown}, not {name!r}")
    if not wanted or len(set(wanted)) < len(wanted):
        raise UserError(f"{argument} must be names, none twice, not {list(wanted)}")
    return tuple(wanted)
