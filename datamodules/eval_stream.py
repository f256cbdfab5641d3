"""The stream of validation, test and prediction: every sample once, in order."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import final

from torch.utils.data import get_worker_info

from datamodules.decoder import SampleDecoder
from datamodules.delivery import BatchBuilder, Delivery, with_errors_as_text
from datamodules.illustrated import Illustrated, as_written
from datamodules.sample import CorruptSample, Sample
from datamodules.shard_reader import RawSample
from datamodules.source import ShardSource, Split
from pretzel.sequence.document import caption_document


@dataclass(frozen=True, kw_only=True)
class EvalPlan:
    """The samples that one process evaluates.

    Attributes:
        split: ``train``, ``val`` or ``test``.
        batch_size: Documents in a batch; the last one may be smaller.
        limit: Number of samples over all processes, ``None`` for all.
        rank: Number of this process.
        world_size: Number of processes; each takes every ``world_size``-th sample.
    """

    split: Split
    batch_size: int
    limit: int | None
    rank: int
    world_size: int


@final
@dataclass(frozen=True, eq=False)
class EvalStream:
    """The documents of this process's samples, in order, nothing dropped or repeated.

    A captioned image becomes caption and image; an interleaved document stays as it is written.
    Every worker reads all shards, but decodes only its own batches.

    Attributes:
        source: Where the samples come from.
        decoder: Decodes them.
        plan: Which of them belong to this process.
    """

    source: ShardSource
    decoder: SampleDecoder
    plan: EvalPlan

    def __iter__(self) -> Iterator[Delivery]:
        worker = get_worker_info()
        turn, turns = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        return with_errors_as_text(self._batches(turn, turns))

    def _batches(self, turn: int, turns: int) -> Iterator[Delivery]:
        plan = self.plan
        builder = BatchBuilder(plan.batch_size, self.decoder.image_size)
        batch = turn
        for place, raw in enumerate(
            islice(self._raw(builder), plan.rank, plan.limit, plan.world_size)
        ):
            number = place // plan.batch_size
            if number % turns != turn:
                continue
            if number != batch:
                # The batch is not full where one of its samples was unreadable.
                yield from builder.flush()
                batch = number
            sample = self.decoder(raw)
            if isinstance(sample, CorruptSample):
                builder.skip(sample)
            elif isinstance(sample, Sample):
                document = caption_document(sample.caption, key=sample.key)
                yield from builder.add(Illustrated(document=document, pixels=(sample.pixels,)))
            else:
                yield from builder.add(as_written(sample))
        yield from builder.flush()

    def _raw(self, builder: BatchBuilder) -> Iterator[RawSample]:
        for shard in self.source.shards(self.plan.split):
            for raw in self.source.read(shard):
                if isinstance(raw, RawSample):
                    yield raw
                else:
                    builder.skip(raw)
