"""Recipes of documents with several images and turns."""

from collections.abc import Iterator
from typing import final

import torch

from datamodules.illustrated import Illustrated, as_written
from datamodules.recipe import Recipe
from datamodules.sample import AnySample, InterleavedSample, Sample
from pretzel.errors import UserError
from pretzel.sequence.document import Document, Image, Segment, Text


@final
class AsWritten(Recipe):
    """Interleaved documents as their shards hold them.

    Args:
        drop: Probability that everything before one image of a document, drawn at random, is
            dropped: the null condition of guidance, for first and for later images.
    """

    def __init__(self, drop: float = 0.1) -> None:
        self.drop = _probability("drop", drop)

    def accepts(self, sample: AnySample) -> bool:
        """Say whether the sample is an interleaved document."""
        return isinstance(sample, InterleavedSample)

    def draw(
        self, sample: AnySample, following: Iterator[AnySample], generator: torch.Generator
    ) -> tuple[Illustrated, ...]:
        """Return one document.

        Raises:
            UserError: If the sample is not an interleaved document.
        """
        if not isinstance(sample, InterleavedSample):
            raise UserError(
                f"recipe AsWritten: sample {sample.key} is not an interleaved document: its json "
                "has no segments"
            )
        return (_dropped(as_written(sample), self.drop, generator),)


@final
class Conversations(Recipe):
    """Turns one after another: a caption, its image, questions with their answers as targets.

    A caption is a request for the image behind it. Where not every turn is shown, a turn without
    its image has the same questions: to be answered from the last caption, whatever was shown
    before. The samples are consecutive ones of the shuffled stream; an interleaved document met on
    the way stays as it is written.

    Args:
        num_turns: Turns of a document.
        max_questions: Most questions of a turn, chosen at random without repetition; every number
            from none on is as frequent, so that another turn may begin behind any of them.
        drop: Probability that everything before one of the images, drawn at random, is dropped:
            the null condition of guidance, for first and for later images.
        shown: Probability of each turn to have its image.

    Raises:
        UserError: If a number is negative, there is no turn, or a probability is none.
    """

    def __init__(
        self, num_turns: int = 2, max_questions: int = 2, drop: float = 0.1, shown: float = 1.0
    ) -> None:
        least = {"num_turns": (num_turns, 1), "max_questions": (max_questions, 0)}
        for name, (number, bound) in least.items():
            if number < bound:
                raise UserError(f"{name} must be at least {bound}, not {number}")
        self.num_turns = num_turns
        self.max_questions = max_questions
        self.drop = _probability("drop", drop)
        self.shown = _probability("shown", shown)

    def accepts(self, sample: AnySample) -> bool:
        """Say whether the sample is a captioned image."""
        return isinstance(sample, Sample)

    def draw(
        self, sample: AnySample, following: Iterator[AnySample], generator: torch.Generator
    ) -> tuple[Illustrated, ...]:
        """Return one document, then the interleaved documents among the samples it took.

        Raises:
            UserError: If the sample is an interleaved document.
        """
        if not isinstance(sample, Sample):
            raise UserError(
                f"recipe Conversations: sample {sample.key} is an interleaved document; use "
                "datamodules.AsWritten, alone or in a Mixture"
            )
        told, met = [sample], []
        while len(told) < self.num_turns:
            other = next(following)
            if isinstance(other, Sample):
                told.append(other)
            else:
                met.append(as_written(other))
        segments: list[Segment] = []
        pixels = []
        for one in told:
            segments.append(Text(content=one.caption))
            if torch.rand((), generator=generator).item() < self.shown:
                segments.append(Image())
                pixels.append(one.pixels)
            count = int(torch.randint(self.max_questions + 1, (), generator=generator))
            order = torch.randperm(len(one.questions), generator=generator).tolist()
            for index in order[:count]:
                question, answer = one.questions[index]
                segments += [Text(content=question), Text(content=answer, role="target")]
        document = Document(key="+".join(one.key for one in told), segments=tuple(segments))
        whole = Illustrated(document=document, pixels=tuple(pixels))
        return (_dropped(whole, self.drop, generator), *met)


def _probability(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise UserError(f"{name} must be a probability in [0, 1], not {value}")
    return value


def _dropped(whole: Illustrated, drop: float, generator: torch.Generator) -> Illustrated:
    is_dropped = torch.rand((), generator=generator).item() < drop
    num_images = whole.document.num_images
    image = int(torch.randint(max(num_images, 1), (), generator=generator))
    return whole.without_past(image) if is_dropped and num_images else whole
