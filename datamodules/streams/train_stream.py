"""The endless, shuffled, reproducible stream of training batches of one process."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import final

from typing_extensions import override

from datamodules.decoding.decoder import SampleDecoder
from datamodules.recipes.illustrated import Illustrated
from datamodules.sample import Skipped
from datamodules.sources.source import Part
from datamodules.streams.delivery import Delivery, DeliveryStream, document_rows
from datamodules.streams.lanes import Lane, LaneState
from datamodules.streams.order import Order
from pretzel.media.base import Medium

_MOST_UNREPORTED = 50
"""Skipped samples that wait for the next batch to be reported with."""

_MOST_IN_A_ROW = 1000


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class TrainStream(DeliveryStream):
    """Batches ``first``, ``first + 1``, ... of one process, without end.

    A batch is the process's rows of a batch of all processes; its workers divide the lanes of
    these rows, and each delivers its part of every batch. Where rows of two processes belong to
    one lane, both read it and the first reports what was skipped.
    """

    parts: tuple[Part, ...]
    decoders: tuple[SampleDecoder, ...]  # of the parts
    order: Order
    medium: Medium  # of the images
    rank: int
    world_size: int
    num_workers: int  # at most one for each lane is used; 0 reads in the process itself
    first: int = 0
    lanes: Mapping[int, LaneState] = field(default_factory=dict)  # the place where they begin
    begin: int = 0  # number of the batch to which this place belongs; those before first are drawn

    @property
    def rows(self) -> range:
        """The rows of this process in a batch of all processes."""
        size = self.order.batch_size // self.world_size
        return range(self.rank * size, (self.rank + 1) * size)

    @property
    def num_parts(self) -> int:
        """Number of parts of each batch: one for each worker that has a lane."""
        return max(1, min(self.num_workers, len(self.order.lanes(self.rows))))

    @override
    def deliveries(self, turn: int, turns: int) -> Iterator[Delivery]:
        rows, own = self.rows, self.order.lanes(self.rows)
        own = own[turn * len(own) // turns : (turn + 1) * len(own) // turns]
        lanes = {
            number: Lane(self.parts, self.decoders, self.order, number, self.lanes.get(number))
            for number in own
        }
        number = self.begin
        while True:
            documents: list[Illustrated] = []
            counts: Counter[str] = Counter()
            for lane_number, lane in lanes.items():
                for row in self.order.rows(lane_number):
                    while (taken := lane.take()) is None:
                        if sum(lane.num_unreported for lane in lanes.values()) > _MOST_UNREPORTED:
                            skipped, seen = self._report(lanes)
                            yield Delivery(skipped=skipped, seen=seen)
                    if row in rows:
                        counts[taken[0]] += 1
                        documents.append(taken[1])
            if number >= self.first:
                skipped, seen = self._report(lanes)
                yield Delivery(
                    rows=document_rows(documents, self.medium),
                    number=number,
                    turn=turn,
                    lanes={number: lane.state for number, lane in lanes.items()},
                    counts=counts,
                    skipped=skipped,
                    seen=seen,
                )
            number += 1

    def _report(self, lanes: Mapping[int, Lane]) -> tuple[tuple[Skipped, ...], int]:
        skipped: list[Skipped] = []
        seen = 0
        for number, lane in lanes.items():
            tally = lane.report()
            if self.order.rows(number)[0] in self.rows:
                skipped += tally.skipped
                seen += tally.seen
        return tuple(skipped), seen
