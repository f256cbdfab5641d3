"""Pictures of a folder in the place of a model and of its data: the same metrics measure them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from lightning.pytorch import LightningDataModule, LightningModule
from pydantic import BaseModel, TypeAdapter, ValidationError
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import override

from callbacks.geneval.layout import METADATA, SAMPLES, images_in, prompt_folders
from callbacks.protocols import Split
from pretzel.errors import UserError
from pretzel.files.image_file import IMAGE_SUFFIXES, open_image
from pretzel.files.medium_error import MediumError
from pretzel.media import Pictures
from pretzel.media.integers import arrays_to_floats
from pretzel.media.rgb import to_rgb


class _Entry(BaseModel):
    """An object of ``prompts.json``."""

    file: str
    prompt: str


_ENTRIES = TypeAdapter(list[_Entry])


class _Metadata(BaseModel):
    """The part of GenEval's ``metadata.jsonl`` that is read."""

    prompt: str


@dataclass(frozen=True, kw_only=True)
class RealPicture:
    """A picture of a folder, as a sample to compare with."""

    key: str
    image: Float[Tensor, "3 height width"]
    caption: str
    questions: Sequence[tuple[str, str]] = field(default=())


@final
class PictureFolder(LightningModule):
    """Pictures that somebody has generated already, in the place of a model that generates.

    :class:`callbacks.Generation` measures them like any other: all of them once, in order of their
    names, as they are. Their prompts are those of ``prompts.json``, as ``pretzel sample`` writes it
    (then its pictures alone count), or stand in ``name.txt`` beside ``name.png``; a picture without
    either has an empty one. A folder without pictures may have GenEval's layout: in a folder a
    prompt, whose name is a number, ``metadata.jsonl`` and ``samples/0000.png``.

    Args:
        folder: The folder; what is in other folders inside it does not count.

    Raises:
        UserError: If there is no picture in it, or a prompt cannot be read.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._pictures = captioned_pictures(Path(folder))
        self._next = 0
        self._shape = tuple(_pixels(self._pictures[0][0]).shape)

    @property
    def prompts(self) -> list[str]:
        """Prompt of each picture."""
        return [prompt for _, prompt in self._pictures]

    @property
    def medium(self) -> Pictures:
        """Pictures, of the height of the first."""
        return Pictures(self._shape[1])

    def sample(
        self, prompts: list[str], *, stream_key: tuple[int | str, ...]
    ) -> Float[Tensor, "n 3 height width"]:
        """Return the next pictures, [n, 3, height, width] in [-1, 1]; batch 0 begins anew.

        Raises:
            UserError: If one is of another size than the first, or cannot be read.
        """
        first = 0 if stream_key[-1] == 0 else self._next
        self._next = first + len(prompts)
        paths = [path for path, _ in self._pictures[first : self._next]]
        return torch.stack([_of_shape(path, self._shape) for path in paths])

    @override
    def test_step(self, batch: object) -> None:
        """Do nothing: it is at the end of a test that pictures are measured."""

    validation_step = test_step


@final
class RealPictures(LightningDataModule):
    """Pictures of a folder as the data that generated ones are compared with.

    They are taken as they are: neither cropped nor resized.

    Args:
        folder: The folder, read as by :class:`PictureFolder`; None for no pictures at all.

    Raises:
        UserError: As of :class:`PictureFolder`.
    """

    def __init__(self, folder: str | None = None) -> None:
        super().__init__()
        self._root = None if folder is None else Path(folder)
        self._pictures = [] if self._root is None else captioned_pictures(self._root)

    def evaluation_samples(
        self, split: Split = "test", limit: int | None = None
    ) -> Iterator[RealPicture]:
        """Yield the pictures, which are those of any split.

        Raises:
            UserError: If there is no folder, or a picture is of another size than the first or
                cannot be read.
        """
        if self._root is None:
            raise UserError(
                "there are no real pictures to compare with: give --real FOLDER, or -c with data"
            )
        shape, root = tuple(_pixels(self._pictures[0][0]).shape), self._root
        return (
            RealPicture(
                key=path.relative_to(root).as_posix(),
                image=_of_shape(path, shape),
                caption=caption,
            )
            for path, caption in self._pictures[:limit]
        )

    @override
    def test_dataloader(self) -> "DataLoader[int]":
        return DataLoader([0])  # type: ignore[arg-type]  # one batch of nothing

    val_dataloader = test_dataloader


def captioned_pictures(folder: Path) -> list[tuple[Path, str]]:
    """Return the pictures of a folder, in order of their names, and their captions.

    They lie in the folder, or in GenEval's layout.

    Raises:
        UserError: If there are none, or a caption cannot be read.
    """
    listed = folder / "prompts.json"
    try:
        if listed.is_file():
            entries = _ENTRIES.validate_json(listed.read_bytes())
            pictures = [(folder / entry.file, entry.prompt) for entry in entries]
            if outside := [path.name for path, _ in pictures if path.parent != folder]:
                raise UserError(f"{listed}: must name files beside it, {outside[0]!r} is not")
        else:
            names = sorted(path for path in folder.iterdir() if _is_picture(path))
            pictures = [(path, _text_beside(path)) for path in names] or _of_geneval(folder)
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"]
        raise UserError(
            f"{listed}: must be a list of {{file, prompt}}, in UTF-8 ({reason})"
        ) from None
    if not pictures:
        raise UserError(f"{folder}: there is no picture ({', '.join(IMAGE_SUFFIXES)}) in it")
    return pictures


def _of_geneval(folder: Path) -> list[tuple[Path, str]]:
    pictures: list[tuple[Path, str]] = []
    for own in prompt_folders(folder):
        images = images_in(own)
        if not images:
            raise UserError(f"{own}: must have images of its prompt, {SAMPLES}/0000.png, got none")
        try:
            prompt = _Metadata.model_validate_json((own / METADATA).read_bytes()).prompt
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]["msg"]
            raise UserError(
                f"{own / METADATA}: must be an object of JSON with a prompt ({reason})"
            ) from None
        pictures += [(image, prompt) for image in images]
    return pictures


def _is_picture(path: Path) -> bool:
    return path.suffix.lower().removeprefix(".") in IMAGE_SUFFIXES and path.name[0] != "."


def _text_beside(picture: Path) -> str:
    text = picture.with_suffix(".txt")
    try:
        return text.read_text(encoding="utf-8").strip() if text.is_file() else ""
    except UnicodeDecodeError as error:
        raise UserError(f"{text}: must be UTF-8 text ({error.reason})") from error


def _of_shape(path: Path, shape: tuple[int, ...]) -> Float[Tensor, "3 height width"]:
    pixels = _pixels(path)
    if tuple(pixels.shape) != shape:
        raise UserError(
            f"{path}: pictures of a folder must have one size, got {pixels.shape[2]}x"
            f"{pixels.shape[1]} beside {shape[2]}x{shape[1]}"
        )
    return pixels


def _pixels(path: Path) -> Float[Tensor, "3 height width"]:
    try:
        with open_image(path) as picture:
            return arrays_to_floats([np.array(to_rgb(picture))])[0]
    except MediumError as error:
        raise UserError(f"{path}: {error.reason}: {error}") from error
