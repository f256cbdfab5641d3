"""Recipes of documents with several images and turns."""

from collections.abc import Iterator
from typing import final

import torch

from datamodules.checks import check_at_least, check_probabilities
from datamodules.recipes.illustrated import Illustrated, as_written
from datamodules.recipes.recipe import Recipe, check_sample
from datamodules.sample import AnySample, InterleavedSample, Sample, Unusable
from pretzel.sequence.document import (
    Document,
    Image,
    Segment,
    Text,
    question_document,
    question_segments,
)


@final
class AsWritten(Recipe):
    """Interleaved documents as their shards hold them.

    Args:
        drop: Probability that everything before one image of a document, drawn at random, is
            dropped: the null condition of guidance, for first and for later images.
    """

    def __init__(self, drop: float = 0.1) -> None:
        check_probabilities(drop=drop)
        self.drop = drop

    def check(self, sample: AnySample) -> None:
        """Refuse samples that are no interleaved documents."""
        if not isinstance(sample, InterleavedSample):
            raise Unusable("other kind", "recipe AsWritten: an image whose json has no segments")

    def draw(
        self, sample: AnySample, following: Iterator[AnySample], generator: torch.Generator
    ) -> tuple[Illustrated, ...]:
        """Return one document."""
        self.check(sample)
        assert isinstance(sample, InterleavedSample)
        return (_with_dropout(as_written(sample), self.drop, generator),)


@final
class Conversations(Recipe):
    """Turns one after another: a caption, its image, questions with their answers as targets.

    A caption is a request for the image behind it. A turn without its image has the same questions:
    they are answered from the last caption, whatever image came before. The samples are consecutive
    ones of the shuffled stream; interleaved documents among them, and images with questions but
    without a caption, become documents of their own.

    Args:
        num_turns: Turns of a document.
        max_questions: Most questions of a turn, chosen at random without repetition; all numbers
            from 0 on are equally frequent, so that the next turn may begin behind any of them.
        drop: Probability that everything before one of the images, drawn at random, is dropped:
            the null condition of guidance, for first and for later images.
        shown: Probability of each turn to have its image.

    Raises:
        UserError: If a number is negative, there is no turn, or a probability is out of range.
    """

    def __init__(
        self, num_turns: int = 2, max_questions: int = 2, drop: float = 0.1, shown: float = 1.0
    ) -> None:
        check_at_least(1, num_turns=num_turns)
        check_at_least(0, max_questions=max_questions)
        check_probabilities(drop=drop, shown=shown)
        self.num_turns = num_turns
        self.max_questions = max_questions
        self.drop = drop
        self.shown = shown

    def check(self, sample: AnySample) -> None:
        """Refuse interleaved documents, and images without a caption."""
        check_sample(self, sample, caption=True, questions=False)

    def draw(
        self, sample: AnySample, following: Iterator[AnySample], generator: torch.Generator
    ) -> tuple[Illustrated, ...]:
        """Return one document, then those of other samples that were met on the way."""
        self.check(sample)
        assert isinstance(sample, Sample)
        turns, others = [sample], list[Illustrated]()
        while len(turns) < self.num_turns:
            other = next(following)
            if not isinstance(other, Sample):
                others.append(as_written(other))
            elif other.caption:
                turns.append(other)
            elif other.questions:
                asked = other.choose_questions(max(self.max_questions, 1), generator)
                document = question_document(asked, key=other.key)
                others.append(Illustrated(document=document, pixels=(other.pixels,)))
        segments: list[Segment] = []
        pixels = []
        for turn in turns:
            segments.append(Text(content=turn.caption))
            if torch.rand((), generator=generator).item() < self.shown:
                segments.append(Image())
                pixels.append(turn.pixels)
            count = int(torch.randint(self.max_questions + 1, (), generator=generator))
            segments += question_segments(turn.choose_questions(count, generator))
        document = Document(key="+".join(turn.key for turn in turns), segments=tuple(segments))
        conversation = Illustrated(document=document, pixels=tuple(pixels))
        return (_with_dropout(conversation, self.drop, generator), *others)


def _with_dropout(illustrated: Illustrated, drop: float, generator: torch.Generator) -> Illustrated:
    """Drop everything before one image of a document, drawn at random, with a probability."""
    is_dropped = torch.rand((), generator=generator).item() < drop
    num_images = illustrated.document.num_images
    # Drawn either way: the number of random numbers does not depend on the choice.
    image = int(torch.randint(max(num_images, 1), (), generator=generator))
    return illustrated.without_past(image) if is_dropped and num_images else illustrated
