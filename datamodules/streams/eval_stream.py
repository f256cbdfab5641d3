"""The stream of validation, test and prediction: every sample once, in order."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import final

from typing_extensions import override

from datamodules.decoding.decoder import SampleDecoder
from datamodules.reading.tar_shard import RawSample
from datamodules.recipes.illustrated import Illustrated, as_written
from datamodules.sample import AnySample, Sample, Skipped, Unusable
from datamodules.sources.source import DataSource, Split
from datamodules.streams.delivery import Delivery, DeliveryStream, document_rows
from pretzel.sequence.document import caption_document, question_document


def evaluated(sample: AnySample) -> Illustrated:
    """Return the document by which a sample is evaluated, with its ground truth.

    Raises:
        Unusable: If it is an image that has neither a caption nor questions.
    """
    if not isinstance(sample, Sample):
        written = as_written(sample)
        return replace(written, document=replace(written.document, truth=sample.truth))
    if sample.caption:
        document = caption_document(sample.caption, key=sample.key)
    elif sample.questions:
        document = question_document(sample.questions, key=sample.key)
    else:
        raise Unusable("no caption", "neither a caption nor questions")
    return Illustrated(document=replace(document, truth=sample.truth), pixels=(sample.pixels,))


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class EvalStream(DeliveryStream):
    """The documents of this process's samples, in order, nothing dropped or repeated.

    An image becomes caption and image, without a caption image, questions and answers; an
    interleaved document stays as it is written.
    Every worker reads all shards, but decodes only its own batches.
    A batch is smaller where one of its samples cannot be used, and the last one may be.
    """

    source: DataSource
    decoder: SampleDecoder
    split: Split
    batch_size: int
    limit: int | None  # samples over all processes
    rank: int
    world_size: int  # each process takes every world_size-th sample
    part: str | None = None  # name of the source where it is one of several

    @property
    def most_samples(self) -> int | None:
        """Most samples of all processes together; None if nothing is known before reading."""
        counts = (self.source.num_samples(self.split), self.limit)
        return min((count for count in counts if count is not None), default=None)

    @property
    def num_batches(self) -> int | None:
        """Number of batches of this process; None if it is unknown before reading."""
        total = self.most_samples
        if total is None or self.source.num_samples(self.split) is None:
            return None
        return math.ceil(len(range(self.rank, total, self.world_size)) / self.batch_size)

    @override
    def deliveries(self, turn: int, turns: int) -> Iterator[Delivery]:
        skipped: list[Skipped] = []
        of_rank = islice(self._raw(turn, skipped), self.rank, self.limit, self.world_size)
        number = 0
        while raws := list(islice(of_rank, self.batch_size)):
            if number % turns == turn:
                yield self._delivery(raws, skipped)
                skipped.clear()
            number += 1
        if skipped:
            yield Delivery(skipped=tuple(skipped), seen=len(skipped))

    def _delivery(self, raws: list[RawSample], skipped: list[Skipped]) -> Delivery:
        documents, seen = [], len(skipped) + len(raws)
        for raw in raws:
            sample = self.decoder(raw)
            if isinstance(sample, Skipped):
                skipped.append(sample)
                continue
            try:
                documents.append(evaluated(sample))
            except Unusable as fault:
                skipped.append(fault.skipped(raw.shard, raw.key))
        rows = document_rows(documents, self.decoder.medium) if documents else None
        return Delivery(rows=rows, skipped=tuple(skipped), seen=seen)

    def _raw(self, turn: int, skipped: list[Skipped]) -> Iterator[RawSample]:
        is_first = self.rank == turn == 0  # of all that read the shards, the one that tells
        for shard in self.source.shards(self.split):
            for raw in self.source.read(shard):
                if isinstance(raw, RawSample):
                    yield raw
                elif is_first:
                    skipped.append(raw)
