"""The laws of media: files of all of them are read, written and shown by the same rules."""

import tempfile
from pathlib import Path

import numpy as np
import torch

from pretzel.errors import UserError
from pretzel.files.medium_error import MediumError
from pretzel.media.base import Medium
from pretzel.media.integers import arrays_to_floats, to_floats, to_integers
from pretzel.testing.deviation import Deviation, LawBroken, require, unmeasured, within
from pretzel.testing.law_case import Case, normal
from pretzel.typing import Float, Tensor


def items(medium: Medium, count: int = 2) -> Float[Tensor, "m ..."]:
    """Return different items of a medium, each a slope and noise, as a file would hold them."""
    slope = torch.linspace(-0.8, 0.8, medium.shape[-1], dtype=torch.float64)
    noise = normal(count, *medium.shape, key="items").tanh()
    return to_floats([to_integers((slope + 0.2 * noise).float(), medium.dtype)])


def _file(medium: Medium, item: Tensor) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"item.{medium.suffix}"
        medium.save(medium.output(item), path)
        return path.read_bytes()


def files_are_read_as_they_were_written(case: Case[Medium]) -> Deviation:
    """The item of a file is another than the one that was written to it."""
    medium = case.build()
    require(medium.suffix in medium.suffixes, f"{medium.suffix} files are written, but not read")
    first, second = items(medium)
    arrays = [medium.read(_file(medium, item)) for item in (first, second)]
    floats = arrays_to_floats(arrays)
    require(floats.shape[1:] == medium.shape, f"a file gives an item of shape {floats.shape[1:]}")
    kind = torch.from_numpy(arrays[0]).dtype
    require(kind == medium.dtype, f"a file gives integers of type {kind}, not {medium.dtype}")
    return within(floats, torch.stack([first, second]), 0.0, "items of files")


def users_give_what_they_get(case: Case[Medium]) -> Deviation:
    """An object, tensor or file that a user gives becomes another item than the one it was."""
    medium = case.build()
    (item,) = items(medium, 1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"item.{medium.suffix}"
        medium.save(medium.output(item), path)
        given = medium.tensors([item, medium.output(item), path, str(path)])
    require(given.dtype == torch.float32, f"items must be float32, got {given.dtype}")
    return within(given, item.expand_as(given), 1e-6, "items that are given")


def pictures_tell_items_apart(case: Case[Medium]) -> Deviation:
    """Pictures of two items are equal, are of different sizes, or not of three colours."""
    medium = case.build()
    pictures = [medium.picture(output) for output in medium.outputs(items(medium))]
    first, second = (np.asarray(picture) for picture in pictures)
    require(pictures[0].mode == "RGB", f"pictures are {pictures[0].mode}, not RGB")
    require(first.shape == second.shape, f"pictures of {first.shape} and {second.shape}")
    require(bool((first != second).any()), "two items have the same picture")
    return unmeasured("pictures")


def what_is_no_item_is_refused(case: Case[Medium]) -> Deviation:
    """Damaged bytes do not raise a MediumError, or what is no item no UserError."""
    medium = case.build()
    (item,) = items(medium, 1)
    for data in (b"", b"<html>", _file(medium, item)[:20]):
        try:
            medium.read(data)
        except MediumError:
            continue
        raise LawBroken(f"{data!r} is read as an item")
    for given in (item[None], item + 3, "no such file", Path("no such file")):
        try:
            medium.tensor(given)
        except UserError:
            continue
        raise LawBroken(f"{given!r} is taken for an item")
    return unmeasured("refusals")


def identities_tell_sizes_apart(case: Case[Medium]) -> Deviation:
    """The identity or the words of a medium do not tell its size, or differ between two alike."""
    medium, again = case.build(), case.build(seed=1)
    require(medium.identity == again.identity, "two media alike have different identities")
    for text in (medium.identity, str(medium)):
        require(str(medium.shape[-1]) in text, f"{text!r} does not hold {medium.shape[-1]}")
    return unmeasured("identities")
