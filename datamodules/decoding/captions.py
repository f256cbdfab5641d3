"""Reads the captions of a sample, and chooses one of them."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, final

import torch

from datamodules.decoding.excerpt import excerpt
from datamodules.decoding.visible_text import visible
from datamodules.reading.archive import JSON_SUFFIX, TEXT_SUFFIX
from datamodules.reading.tar_shard import RawSample
from datamodules.sample import Unusable
from pretzel.errors import UserError

TEXT_FIELD = ".txt"
"""Name of ``key.txt`` among fields of captions."""


class CaptionChoice(ABC):
    """Chooses one of the captions that a sample has.

    Attributes:
        is_random: Whether training sees another one in every epoch.
    """

    no_laws: ClassVar[str] = "any choice among the captions is right; randomness comes with `draw`"

    is_random: ClassVar[bool]

    @abstractmethod
    def choose(self, captions: Sequence[str], draw: torch.Generator | None) -> str:
        """Return one of the captions, or an empty text if none is wanted.

        Args:
            captions: At least one place; an empty text where a caption is missing.
            draw: Random numbers that belong to the sample; None in evaluation.
        """


@final
class FirstCaption(CaptionChoice):
    """The first caption that says something."""

    is_random = False

    def choose(self, captions: Sequence[str], draw: torch.Generator | None) -> str:
        """Return the first one that is not empty."""
        return next(filter(None, captions), "")


@final
class RandomCaption(CaptionChoice):
    """Any of the captions, each as often; in evaluation the first."""

    is_random = True

    def choose(self, captions: Sequence[str], draw: torch.Generator | None) -> str:
        """Return one that is not empty."""
        usable = [caption for caption in captions if caption]
        return _drawn(usable, [1.0] * len(usable), draw)


@final
class WeightedCaption(CaptionChoice):
    """Captions by weight, such as a short and a long one; in evaluation the heaviest.

    Args:
        weights: One number for each place of a caption: each field of ``caption_field``, or each
            item of a list. Captions behind the last weight are not chosen; where one is missing,
            the others keep their proportions.

    Raises:
        UserError: If a weight is negative or infinite, or none is positive.
    """

    is_random = True

    def __init__(self, weights: list[float]) -> None:
        if not all(0 <= weight < math.inf for weight in weights) or not any(weights):
            raise UserError(
                f"weights must be numbers from 0 on, at least one of them positive, not {weights}"
            )
        self.weights = weights

    def choose(self, captions: Sequence[str], draw: torch.Generator | None) -> str:
        """Return one that is not empty and has a weight."""
        pairs = [(c, w) for c, w in zip(captions, self.weights, strict=False) if c and w > 0]
        return _drawn([caption for caption, _ in pairs], [weight for _, weight in pairs], draw)


def _drawn(captions: list[str], weights: list[float], draw: torch.Generator | None) -> str:
    if not captions:
        return ""
    if draw is None:
        return captions[weights.index(max(weights))]
    cumulative = torch.tensor(weights, dtype=torch.float64).cumsum(0)
    point = torch.rand((), generator=draw, dtype=torch.float64) * cumulative[-1]
    return captions[min(int((cumulative <= point).sum()), len(captions) - 1)]


def read_captions(
    raw: RawSample, fields: dict[str, Any], names: str | Sequence[str]
) -> tuple[str, ...]:
    """Return the captions of a sample; an empty text where one is missing.

    Args:
        raw: Members of the sample.
        fields: What ``key.json`` holds.
        names: A field of ``key.json`` that counts where ``key.txt`` is missing or empty; or the
            fields of which all count, in order, ``.txt`` among them standing for ``key.txt``. A
            field holds a text, a list of texts, or nothing (null).

    Raises:
        Unusable: If a field holds anything else, or the text is not UTF-8.
    """
    if not isinstance(names, str):
        return tuple(caption for name in names for caption in _read(raw, fields, name))
    text = _read(raw, fields, TEXT_FIELD)
    return text if any(text) else _read(raw, fields, names)


def _read(raw: RawSample, fields: dict[str, Any], name: str) -> tuple[str, ...]:
    if name == TEXT_FIELD:
        try:
            value: object = raw.members.get(TEXT_SUFFIX, b"").decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise Unusable("damaged", f"{raw.key}.{TEXT_SUFFIX} is not UTF-8: {error}") from None
    else:
        value = fields.get(name)
    captions = []
    for one in (value or [None]) if isinstance(value, list) else [value]:
        if one is not None and not isinstance(one, str):
            raise Unusable(
                "unknown form",
                f"field {name!r} of {raw.key}.{JSON_SUFFIX} must be a text or a list of texts, not "
                f"{excerpt(value)}",
            )
        captions.append(visible(one or ""))
    return tuple(captions)
