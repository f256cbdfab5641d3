"""The stream of validation, test and prediction: every sample once, in order."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import final

from typing_extensions import override

from datamodules.decoding.decoder import SampleDecoder
from datamodules.reading.tar_shard import RawSample
from datamodules.recipes.illustrated import Illustrated, as_written
from datamodules.sample import Sample, Skipped, Unusable
from datamodules.sources.source import DataSource, Split
from datamodules.streams.delivery import BatchBuilder, Delivery, DeliveryStream
from pretzel.sequence.document import caption_document, question_document


def evaluated(sample: Sample) -> Illustrated:
    """Return the document by which an image is evaluated.

    Raises:
        Unusable: If it has neither a caption nor questions.
    """
    if sample.caption:
        document = caption_document(sample.caption, key=sample.key)
    elif sample.questions:
        document = question_document(sample.questions, key=sample.key)
    else:
        raise Unusable("no caption", "neither a caption nor questions")
    return Illustrated(document=document, pixels=(sample.pixels,))


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class EvalStream(DeliveryStream):
    """The documents of this process's samples, in order, nothing dropped or repeated.

    An image becomes caption and image, without a caption image, questions and answers; an
    interleaved document stays as it is written.
    Every worker reads all shards, but decodes only its own batches.
    The last batch may be smaller.
    """

    source: DataSource
    decoder: SampleDecoder
    split: Split
    batch_size: int
    limit: int | None  # samples over all processes
    rank: int
    world_size: int  # each process takes every world_size-th sample

    @override
    def deliveries(self, turn: int, turns: int) -> Iterator[Delivery]:
        builder = BatchBuilder(self.batch_size, self.decoder.image_size)
        batch = turn
        of_rank = islice(self._raw(builder), self.rank, self.limit, self.world_size)
        for place, raw in enumerate(of_rank):
            number = place // self.batch_size
            if number % turns != turn:
                continue
            if number != batch:
                # The batch is not full where one of its samples was skipped.
                yield from builder.flush()
                batch = number
            builder.seen += 1
            sample = self.decoder(raw)
            if isinstance(sample, Skipped):
                builder.skip(sample)
            elif isinstance(sample, Sample):
                try:
                    yield from builder.add(evaluated(sample))
                except Unusable as fault:
                    builder.skip(fault.skipped(raw.shard, raw.key))
            else:
                yield from builder.add(as_written(sample))
        yield from builder.flush()

    def _raw(self, builder: BatchBuilder) -> Iterator[RawSample]:
        for shard in self.source.shards(self.split):
            for raw in self.source.read(shard):
                if isinstance(raw, RawSample):
                    yield raw
                else:
                    builder.seen += 1
                    builder.skip(raw)
