"""Recipes that teach a vision-language model what captions, questions and images have in common."""

from typing import final

import torch

from datamodules.recipe import SampleRecipe
from datamodules.sample import Sample
from pretzel.errors import UserError
from pretzel.sequence.document import Document, Image, Segment, Text


@final
class Described(SampleRecipe):
    """Image, then its caption and the answers to questions about it as targets.

    Args:
        per_image: Number of questions, chosen at random without repetition; all of them where the
            image has fewer, none where it has none.
    """

    def __init__(self, per_image: int = 4) -> None:
        self.per_image = _count(per_image)

    def documents(self, sample: Sample, generator: torch.Generator) -> tuple[Document, ...]:
        """Return one document: image, caption, question, answer, question, answer, ..."""
        caption = Text(content=sample.caption, role="target")
        asked = _asked(sample, self.per_image, generator)
        return (Document(key=sample.key, segments=(Image(), caption, *asked)),)


@final
class Told(SampleRecipe):
    """Caption, then the answers to questions as targets; no image.

    Args:
        per_image: Number of questions, chosen at random without repetition; all of them where the
            image has fewer, none where it has none.
    """

    def __init__(self, per_image: int = 4) -> None:
        self.per_image = _count(per_image)

    def documents(self, sample: Sample, generator: torch.Generator) -> tuple[Document, ...]:
        """Return one document: caption, question, answer, question, answer, ..."""
        asked = _asked(sample, self.per_image, generator)
        return (Document(key=sample.key, segments=(Text(content=sample.caption), *asked)),)


def _count(per_image: int) -> int:
    if per_image < 1:
        raise UserError(f"per_image must be at least 1, not {per_image}")
    return per_image


def _asked(sample: Sample, count: int, generator: torch.Generator) -> list[Segment]:
    order = torch.randperm(len(sample.questions), generator=generator).tolist()
    segments: list[Segment] = []
    for index in order[:count]:
        question, answer = sample.questions[index]
        segments += [Text(content=question), Text(content=answer, role="target")]
    return segments
