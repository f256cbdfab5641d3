"""Recipes of documents with several images and turns."""

from collections.abc import Iterator
from typing import final

import torch

from datamodules.illustrated import Illustrated, as_written
from datamodules.recipe import Recipe
from datamodules.sample import AnySample, InterleavedSample, Sample
from pretzel.errors import UserError
from pretzel.sequence import Document, Image, Segment, Text


@final
class AsWritten(Recipe):
    """Interleaved documents as their shards hold them.

    Args:
        drop: Probability that everything before one image of a document, drawn at random, is
            dropped: the null condition of guidance, for first and for later images.
    """

    def __init__(self, drop: float = 0.1) -> None:
        self.drop = _probability(drop)

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
    """Caption, image, question, answer, then the caption of another image, that image, and so on.

    A caption is a request for the image behind it; answers are targets. The images are those of
    consecutive samples of the shuffled stream; an interleaved document met on the way stays as it
    is written.

    Args:
        num_images: Images of a document.
        per_image: Questions behind each image, chosen at random without repetition; all of them
            where the image has fewer.
        drop: Probability that everything before one of the images, drawn at random, is dropped:
            the null condition of guidance, for first and for later images.
    """

    def __init__(self, num_images: int = 2, per_image: int = 1, drop: float = 0.1) -> None:
        for name, number, least in (("num_images", num_images, 1), ("per_image", per_image, 0)):
            if number < least:
                raise UserError(f"{name} must be at least {least}, not {number}")
        self.num_images = num_images
        self.per_image = per_image
        self.drop = _probability(drop)

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
        shown, met = [sample], []
        while len(shown) < self.num_images:
            other = next(following)
            if isinstance(other, Sample):
                shown.append(other)
            else:
                met.append(as_written(other))
        segments: list[Segment] = []
        for one in shown:
            segments += [Text(content=one.caption), Image()]
            order = torch.randperm(len(one.questions), generator=generator).tolist()
            for index in order[: self.per_image]:
                question, answer = one.questions[index]
                segments += [Text(content=question), Text(content=answer, role="target")]
        document = Document(key="+".join(one.key for one in shown), segments=tuple(segments))
        whole = Illustrated(document=document, pixels=tuple(one.pixels for one in shown))
        return (_dropped(whole, self.drop, generator), *met)


def _probability(drop: float) -> float:
    if not 0 <= drop <= 1:
        raise UserError(f"drop must be a probability in [0, 1], not {drop}")
    return drop


def _dropped(whole: Illustrated, drop: float, generator: torch.Generator) -> Illustrated:
    is_dropped = torch.rand((), generator=generator).item() < drop
    num_images = whole.document.num_images
    image = int(torch.randint(max(num_images, 1), (), generator=generator))
    return whole.without_past(image) if is_dropped and num_images else whole
