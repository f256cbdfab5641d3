"""Decoded samples, and records of samples that cannot serve."""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pretzel.media.integers import IntegerArray, arrays_to_floats
from pretzel.sequence.document import Image, Text, Truth

ImageArray = IntegerArray | Float[np.ndarray, "positions channels"]
"""RGB bytes, cropped and resized, or the integers of another medium; in training also latents that
were computed beforehand."""


def is_latents(image: ImageArray) -> bool:
    """Tell latents from media, which are integers."""
    return image.dtype.kind == "f"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An image with its caption, questions, or both.

    Attributes:
        key: Name of the sample in its shards; the same in every epoch and process.
        pixels: The image.
        caption: Description of the image; empty where there is none.
        captions: All its descriptions, of which ``caption`` was chosen.
        questions: Pairs of question and answer; empty where the data has none.
        answers: All answers that were given to each question, as often as they were given, in the
            order of ``questions``, whose answer is the target.
        answer_types: Name that the data gives to the kind of each answer, in the order of
            ``questions``; an empty text where it has none, and empty where it has none at all.
        question_types: The same of each question.
        choices: Texts that each question may be answered with, likewise.
        truth: All else that its JSON says of it: ground truth, for metrics and recipes.
    """

    key: str
    pixels: ImageArray = field(repr=False, compare=False)
    caption: str
    captions: tuple[str, ...] = ()
    questions: tuple[tuple[str, str], ...] = ()
    answers: tuple[tuple[str, ...], ...] = ()
    answer_types: tuple[str, ...] = ()
    question_types: tuple[str, ...] = ()
    choices: tuple[tuple[str, ...], ...] = ()
    truth: Truth = field(default_factory=dict, repr=False, hash=False)

    @property
    def image(self) -> Float[Tensor, "..."]:
        """The image, or item of another medium, in [-1, 1]."""
        return arrays_to_floats([self.pixels])[0]

    def choose_questions(self, count: int, generator: torch.Generator) -> list[tuple[str, str]]:
        """Return so many questions with answers, at most all, at random, without repetition."""
        order = torch.randperm(len(self.questions), generator=generator).tolist()
        return [self.questions[index] for index in order[:count]]


@dataclass(frozen=True, kw_only=True)
class InterleavedSample:
    """Text and images in the order in which they were written.

    Attributes:
        key: Name of the sample in its shards; the same in every epoch and process.
        segments: Runs of text and places of images, in reading order.
        images: The images in that order.
        truth: All else that its JSON says of it, as of a :class:`Sample`.
    """

    key: str
    segments: tuple[Text | Image, ...]
    images: tuple[ImageArray, ...] = field(repr=False, compare=False)
    truth: Truth = field(default_factory=dict, repr=False, hash=False)


AnySample = Sample | InterleavedSample

_LONGEST = 500


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A sample, or the rest of a shard, that cannot serve.

    Attributes:
        shard: Path or address of the shard.
        key: Key of the sample; ``*`` for the rest of a shard.
        reason: What is wrong, in the words of one of :data:`REASONS`.
        detail: The same of this sample.
    """

    shard: str
    key: str
    reason: str
    detail: str = ""

    def __str__(self) -> str:
        detail = f": {self.detail}" if self.detail else ""
        text = f"{self.key} in {self.shard} ({self.reason}{detail})"
        # Names in archives may be anybody's: one short line, nothing that steers a terminal.
        line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."


class Unusable(Exception):  # nothing is wrong with the program
    """Raised where a sample cannot serve: it is skipped and counted by its reason.

    Args:
        reason: One of :data:`REASONS`.
        detail: The same of this sample.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(detail or reason)
        self.reason = reason
        self.detail = detail

    def skipped(self, shard: str, key: str) -> Skipped:
        """Return the record of the sample."""
        return Skipped(shard=shard, key=key, reason=self.reason, detail=self.detail)


REASONS = (
    "damaged",  # bytes that cannot be decoded, an archive that is cut off
    "empty shard",
    "no image",
    "no caption",
    "no questions",
    "too small",  # an image
    "too short",  # a video or sound
    "sample rate",  # of a sound that is not that of the model
    "too large",  # an image or files that would fill the memory
    "colour profile",  # an ICC profile that is broken, or of another kind than the image
    "value range",  # grey values neither of 8 nor of 16 bits, nor in [0, 1]; samples not finite
    "text too long",
    "nested too deep",  # JSON
    "key with dots",
    "name twice",  # of members, of files, or of pictures that differ in their suffix alone
    "unknown form",  # of captions, questions or segments
    "other kind",  # a captioned image for a recipe of documents, or the reverse
    "no recipe",  # several recipes, none accepts it
)
"""Why samples are skipped."""
