"""The contract of shard sources, where samples come from."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar, Literal

from datamodules.decoding.captions import CaptionChoice, FirstCaption
from datamodules.decoding.decoder import MAX_CHARACTERS, SampleDecoder
from datamodules.decoding.media import MediaDecoder
from datamodules.decoding.picture import PictureDecoder
from datamodules.reading.opening import identities
from datamodules.reading.tar_shard import RawSample, read_shard, resident_shard
from datamodules.recipes.recipe import Recipe
from datamodules.sample import AnySample, Sample, Skipped
from pretzel.errors import NothingToMeasure, UserError

Split = Literal["train", "val", "test"]


class DataSource(ABC):
    """Shards of images with captions, or of interleaved documents, by split.

    A source names its shards and reads them; it does not shuffle, batch or repeat.

    Attributes:
        caption_field: Field of ``key.json`` that holds the caption where there is no ``key.txt``;
            or several of which all count, ``.txt`` standing for ``key.txt``.
        caption_choice: Chooses one of several captions.
        resident: Whether the data is small enough to stay in memory once read.
        laws: Module of the laws of all sources.
    """

    laws: ClassVar[str] = "datamodules.laws"

    caption_field: str | Sequence[str] = "caption"
    caption_choice: CaptionChoice = FirstCaption()
    resident: bool = False

    @abstractmethod
    def shards(self, split: Split) -> tuple[str, ...]:
        """Return the shards of a split, empty if the source has no such split.

        Raises:
            UserError: If a local shard does not exist.
        """

    @abstractmethod
    def num_samples(self, split: Split) -> int | None:
        """Return the number of samples of a split, ``None`` if it is unknown before reading."""

    def identities(self, shards: tuple[str, ...]) -> tuple[str, ...]:
        """Return what tells the contents of shards from those of others, nothing downloaded.

        The content hash of a file, address, size and ETag of an address, the text of a ``pipe:``.

        Raises:
            UserError: If a shard does not exist or cannot be reached.
        """
        return identities(shards)

    def read(self, shard: str, first: int = 0, step: int = 1) -> Iterator[RawSample | Skipped]:
        """Yield the raw samples ``first``, ``first + step``, ... of one shard, in order."""
        if self.resident:
            return islice(resident_shard(shard), first, None, step)
        return read_shard(shard, first, step)

    def parts(self, recipe: Recipe | None) -> tuple["Part", ...]:
        """Return the parts of which training data is mixed: here this source alone.

        Raises:
            UserError: If there is no recipe.
        """
        if recipe is None:
            raise UserError(f"recipe must be given where the source is {type(self).__name__}")
        return (Part(name=type(self).__name__, source=self, recipe=recipe, weight=1.0),)

    def read_texts(self, shard: str) -> Iterator[RawSample | Skipped]:
        """Yield the raw samples of one shard in order, without images where that is faster."""
        return self.read(shard)

    def read_chosen(self, shard: str, keys: Collection[str]) -> Iterator[RawSample | Skipped]:
        """Yield the raw samples of one shard that have these keys, in order."""
        return (raw for raw in self.read(shard) if raw.key in keys)

    def texts(self, split: Split, max_characters: int = MAX_CHARACTERS) -> Iterator[Sample]:
        """Yield caption and questions of every sample of a split in order, its image left out.

        Those whose texts cannot serve are left out; interleaved documents have neither.

        Args:
            split: ``train``, ``val`` or ``test``.
            max_characters: Most characters of a text; with a longer one a sample cannot serve.

        Raises:
            UserError: If a shard is missing.
        """
        decode = self.decoder(PictureDecoder(image_size=1), max_characters).texts
        for shard in self.shards(split):
            for raw in self.read_texts(shard):
                sample = decode(raw) if isinstance(raw, RawSample) else raw
                if not isinstance(sample, Skipped):
                    yield sample

    def decoder(self, media: MediaDecoder, max_characters: int = MAX_CHARACTERS) -> SampleDecoder:
        """Return the decoder of this source's samples.

        Args:
            media: Decodes their images.
            max_characters: Most characters of a text; with a longer one a sample cannot serve.
        """
        return SampleDecoder(
            media=media,
            caption_field=self.caption_field,
            caption_choice=self.caption_choice,
            resident=self.resident,
            max_characters=max_characters,
        )

    def samples(self, split: Split, image_size: int) -> Iterator[Sample]:
        """Yield every image of a split with its texts, the centred square of so many pixels a side.

        Raises:
            NothingToMeasure: If there is nothing but interleaved documents.
        """
        return self.images_by(self.decoder(PictureDecoder(image_size=image_size)), split)

    def decoded_by(
        self, decoder: SampleDecoder, split: Split, keys: Collection[str] | None = None
    ) -> Iterator[AnySample]:
        """Yield every sample of a split once, in order, as evaluation sees it.

        Those that cannot serve are left out.

        Args:
            decoder: Decoder of this source.
            split: ``train``, ``val`` or ``test``.
            keys: Keys of the samples that are decoded; None for all.

        Raises:
            UserError: If a shard is missing.
        """
        for shard in self.shards(split):
            for raw in self.read(shard) if keys is None else self.read_chosen(shard, keys):
                sample = decoder(raw) if isinstance(raw, RawSample) else raw
                if not isinstance(sample, Skipped):
                    yield sample

    def images_by(
        self, decoder: SampleDecoder, split: Split, keys: Collection[str] | None = None
    ) -> Iterator[Sample]:
        """Yield images of a split as :meth:`samples` does, all or those of some keys.

        Args:
            decoder: Decoder of this source.
            split: ``train``, ``val`` or ``test``.
            keys: Keys of the samples that are decoded; None for all.

        Raises:
            NothingToMeasure: If there is nothing but interleaved documents.
        """
        others = images = 0
        for sample in self.decoded_by(decoder, split, keys):
            if isinstance(sample, Sample):
                images += 1
                yield sample
            else:
                others += 1
        if others and not images:
            raise NothingToMeasure(
                f"the {split} shards hold interleaved documents alone; captioned images are needed"
            )


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of the training data.

    Attributes:
        name: Its name in logs; no two parts share one.
        source: Where its samples come from.
        recipe: Turns them into documents.
        weight: Its share of the documents is this number over the sum of those of all parts.
    """

    name: str
    source: DataSource
    recipe: Recipe
    weight: float
