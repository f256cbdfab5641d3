"""Samples, files and identities of data, for metrics, plans and tools: without training on them."""

import hashlib
import json
from abc import ABC
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import chain, islice
from typing import get_args

from lightning.pytorch import LightningDataModule

from datamodules.decoding.decoder import SampleDecoder
from datamodules.decoding.media import NoDecoder
from datamodules.reading.opening import is_pipe
from datamodules.reading.remote import is_remote
from datamodules.sample import AnySample, InterleavedSample, Sample, Unusable
from datamodules.sources.source import DataSource, Part, Split
from datamodules.streams.decoded_parts import DecodedParts
from datamodules.suites.suite import Suite
from pretzel.errors import NothingToMeasure
from pretzel.rng import stream
from pretzel.sequence.document import Document


class SampleAccess(LightningDataModule, ABC):
    """A datamodule whose samples can be had one by one, in order, in every process.

    Attributes:
        source: DataSource of the samples.
        parts: Its parts, each with the decoder of its samples.
        seed: Seed of all random choices of the data.
    """

    source: DataSource
    parts: DecodedParts
    seed: int

    def __init__(self) -> None:
        super().__init__()
        self._shown: dict[int, list[Document]] = {}

    @property
    def suite(self) -> str:
        """The published suite that the questions are of, with its files; empty if of none."""
        return self.source.describe() if isinstance(self.source, Suite) else ""

    def evaluation_samples(
        self, split: Split = "test", limit: int | None = None
    ) -> Iterator[Sample]:
        """Yield images once, in order, with captions and questions.

        Args:
            split: ``train``, ``val`` or ``test``.
            limit: Number of samples; all if not given.

        Raises:
            NothingToMeasure: If the source has no such split, or it holds interleaved documents
                alone.
        """
        if not self.source.shards(split):
            raise NothingToMeasure(f"{type(self.source).__name__} has no {split} shards")
        return self._images(split, limit)

    def evaluation_documents(
        self, split: Split = "test", limit: int | None = None
    ) -> Iterator[InterleavedSample]:
        """Yield interleaved documents once, in order, such as edits; images are left out.

        Args:
            split: ``train``, ``val`` or ``test``.
            limit: Number of documents; all if not given.

        Raises:
            UserError: If a shard is missing.
        """
        return (
            sample
            for part, decoder, share in self.parts.shares(split, limit)
            for sample in islice(_documents(part.source.decoded_by(decoder, split)), share)
        )

    def evaluation_texts(self, split: Split = "test", limit: int | None = None) -> Iterator[Sample]:
        """Yield what :meth:`evaluation_samples` yields, without reading the images.

        Samples whose image cannot be read are among them, and interleaved documents without texts.

        Args:
            split: ``train``, ``val`` or ``test``.
            limit: Number of samples; all if not given.

        Raises:
            UserError: If a shard is missing.
        """
        return (
            sample
            for part, decoder, share in self.parts.shares(split, limit)
            for sample in islice(part.source.texts(split, decoder.max_characters), share)
        )

    def chosen_samples(self, split: Split, keys: Collection[str]) -> Iterator[Sample]:
        """Yield those of :meth:`evaluation_samples` that have these keys; others are not decoded.

        Raises:
            UserError: If a shard is missing.
        """
        return (
            sample
            for part, decoder in self.parts
            for sample in part.source.images_by(decoder, split, keys)
        )

    def example_documents(self, count: int) -> list[Document]:
        """Return about ``count`` documents of the first training samples, of parts by weight.

        None where shards are remote or commands: they are read by training alone.

        Raises:
            UserError: If a shard is missing, or none of the first hundred samples can serve.
        """
        if count not in self._shown:  # the arms of a grid ask for the same ones
            self._shown[count] = self._example_documents(count)
        return self._shown[count]

    def split_files(self) -> dict[str, tuple[str, ...]]:
        """Return the shards of each split.

        Raises:
            UserError: If a local shard does not exist.
        """
        return {
            split: tuple(shard for part, _ in self.parts for shard in part.source.shards(split))
            for split in get_args(Split)
        }

    def manifest(self) -> dict[str, str]:
        """Return the identity of each shard's content, by ``split/place``.

        Raises:
            UserError: If a shard does not exist or cannot be reached.
        """
        return {
            f"{split}/{index}": identity
            for split in get_args(Split)
            for index, identity in enumerate(self.source.identities(self.source.shards(split)))
        }

    def images_identity(self, split: Split) -> str:
        """Return a hash of all that :meth:`evaluation_samples` depends on; empty if unknown.

        That is the contents of the shards, how they are read and how pictures are decoded. Of a
        command's output nothing is known before it is run.

        Raises:
            UserError: If a shard does not exist or cannot be reached.
        """
        parts = []
        for part, decoder in self.parts:
            shards = part.source.shards(split)
            if any(is_pipe(shard) for shard in shards):
                return ""
            kind, settings = type(part.source), sorted(vars(part.source).items())
            # not where shards lie, which says nothing of their contents
            words = [f"{key}={value}" for key, value in settings if _is_setting(value)]
            reading = (kind.__module__, kind.__qualname__, decoder.max_characters, words)
            identities = part.source.identities(shards)
            parts.append((reading, decoder.media.identity, identities))
        return hashlib.sha256(json.dumps([split, parts]).encode()).hexdigest()

    def _images(self, split: Split, limit: int | None) -> Iterator[Sample]:
        nothing: NothingToMeasure | None = None
        has_images = False
        for part, decoder, share in self.parts.shares(split, limit):
            try:
                for sample in islice(part.source.images_by(decoder, split), share):
                    has_images = True
                    yield sample
            except NothingToMeasure as error:
                nothing = error
        if nothing is not None and not has_images:
            raise nothing

    def _example_documents(self, count: int) -> list[Document]:
        first = [shard for part, _ in self.parts for shard in part.source.shards("train")[:1]]
        if not first or any(is_pipe(shard) or is_remote(shard) for shard in first):
            return []
        self.parts.check("train")
        total = sum(part.weight for part, _ in self.parts)
        shares = [round(count * part.weight / total) for part, _ in self.parts]
        examples = [
            _examples(part, decoder, max(share, 1), self.seed)
            for (part, decoder), share in zip(self.parts, shares, strict=True)
        ]
        return list(chain.from_iterable(examples))


def _documents(samples: Iterator[AnySample]) -> Iterator[InterleavedSample]:
    return (sample for sample in samples if isinstance(sample, InterleavedSample))


def _is_setting(value: object) -> bool:
    return isinstance(value, bool | int | float) or (isinstance(value, str) and "/" not in value)


def _examples(part: Part, decoder: SampleDecoder, count: int, seed: int) -> list[Document]:
    undecoded = replace(decoder, media=NoDecoder(left_as=decoder.medium), latents=None)
    samples = filter(part.recipe.accepts, _in_order(part.source, undecoded))
    documents = list[Document]()
    # at most as many draws: a recipe may refuse every sample that it accepted at first
    for number, sample in zip(range(count), samples, strict=False):
        with suppress(Unusable):
            drawn = part.recipe.draw(sample, samples, stream(seed, "examples", number))
            documents += [illustrated.document for illustrated in drawn]
        if len(documents) >= count:
            break
    return documents


def _in_order(source: DataSource, decoder: SampleDecoder) -> Iterator[AnySample]:
    """Yield the training samples of a source in order, again and again."""
    while True:
        samples = source.decoded_by(decoder, "train")
        if (first := next(samples, None)) is None:
            return
        yield from chain((first,), samples)
