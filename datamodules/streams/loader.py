"""Loaders: streams run in worker processes, batches are delivered in the main one.

They are plain iterables rather than ``DataLoader`` subclasses, so that Lightning neither
replaces their sampling nor prefetches (their length is known), and sees that they can resume.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import final

import torch
from torch.utils.data import DataLoader

from datamodules.streams.delivery import Delivery, DeliveryStream, document_batch
from datamodules.streams.eval_stream import EvalStream
from datamodules.streams.lanes import LaneState
from datamodules.streams.part_log import PartLog
from datamodules.streams.progress import Progress
from datamodules.streams.skip_log import SkipLog, listed
from datamodules.streams.train_stream import TrainStream
from pretzel.errors import UserError
from pretzel.sequence.document import DocumentBatch


def received(stream: DeliveryStream, num_workers: int, log: SkipLog) -> Iterator[Delivery]:
    """Yield a stream's deliveries; record what it skipped.

    Raises:
        UserError: If the stream reports a user's mistake or too many samples are skipped.
    """
    # DataLoader draws a seed for its workers: from numbers of its own, or else how often it is
    # opened (by a resume, by a validation) would change the random numbers of training.
    own = torch.Generator()
    for delivery in DataLoader(stream, batch_size=None, num_workers=num_workers, generator=own):
        log.record(delivery.skipped, delivery.seen)
        if delivery.error is not None:
            raise UserError(delivery.error)
        yield delivery


WholeBatch = tuple[DocumentBatch, dict[int, LaneState], Counter[str]]
"""A batch, the places of the lanes behind it, its documents by part of the data."""


def whole_batches(
    deliveries: Iterator[Delivery], num_parts: int
) -> Generator[WholeBatch, None, None]:
    """Put the workers' parts of each batch together."""
    waiting = defaultdict[int, list[Delivery]](list)
    for delivery in deliveries:
        if delivery.rows is None:
            continue
        parts = waiting[delivery.number]
        parts.append(delivery)
        if len(parts) == num_parts:
            del waiting[delivery.number]
            parts.sort(key=lambda part: part.turn)
            rows = [part.rows for part in parts if part.rows is not None]
            lanes = {number: lane for part in parts for number, lane in part.lanes.items()}
            yield document_batch(rows), lanes, sum((Counter(p.counts) for p in parts), Counter())


@final
class TrainLoader:
    """One epoch of training batches for each iteration.

    The workers go on over epochs: what they have read ahead at the end of one begins the next.

    Args:
        stream: The stream from its first batch on.
        steps: Batches of an epoch.
        log: Receives the skipped samples.
        progress: Where the lanes stand; kept up to date.
        repeats: Whether every epoch has the batches of the first.
        part_log: Logs how much of each part of the data has been seen, if there are several.
        consumed: Returns how many batches training has consumed, all epochs together. ``None``:
            the loader counts the batches it hands out, and every iteration begins a new epoch.
    """

    def __init__(
        self,
        stream: TrainStream,
        steps: int,
        log: SkipLog,
        progress: Progress,
        *,
        repeats: bool,
        part_log: PartLog | None,
        consumed: Callable[[], int] | None,
    ) -> None:
        self._stream = stream
        self._steps = steps
        self._log = log
        self._progress = progress
        self._repeats = repeats
        self._part_log = part_log
        self._consumed = consumed
        self._handed_out = 0
        self._resumed = False
        self._running: Generator[WholeBatch, None, None] | None = None

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[DocumentBatch]:
        # Runs when the first batch is asked for: by then the trainer has restored its progress.
        position = self._position()
        if self._running is None or self._repeats or position != self._handed_out:
            self._running = self._opened(position)
        # Lightning leaves an iteration at its last batch: nothing may depend on code behind it.
        running, self._handed_out = self._running, position
        for _ in range(position % self._steps, self._steps):
            batch, lanes, counts = next(running)
            self._handed_out += 1
            if not self._repeats:
                self._progress.record(self._handed_out, lanes, counts)
                if self._part_log is not None and self._part_log.is_due(self._handed_out):
                    self._part_log.log(self._progress.documents, self._progress.own, lanes)
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the number of batches consumed."""
        return {"consumed": self._handed_out if self._consumed is None else self._consumed()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue behind the batches that were consumed."""
        self._handed_out = state["consumed"]
        self._resumed = True

    def close(self) -> None:
        """End the workers."""
        if self._running is not None:
            self._running.close()
            self._running = None

    def _opened(self, position: int) -> Generator[WholeBatch, None, None]:
        self.close()  # the workers of before end first
        begin, lanes = (0, {}) if self._repeats else self._progress.before(position)
        first = position % self._steps if self._repeats else position
        stream = replace(self._stream, first=first, begin=begin, lanes=lanes)
        num_workers = min(stream.num_workers, stream.num_parts)
        return whole_batches(received(stream, num_workers, self._log), stream.num_parts)

    def _position(self) -> int:
        if self._consumed is not None:
            return self._consumed()
        if self._resumed:
            self._resumed = False
            return self._handed_out
        return -(-self._handed_out // self._steps) * self._steps


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class EvalLoader:
    """Every sample of this process once, in order, in each iteration, stream by stream.

    Raises:
        UserError: If there are fewer samples than processes. Without a batch of its own a process
            leaves the others waiting in the exchanges of an evaluation.
    """

    streams: tuple[EvalStream, ...]
    num_workers: int  # 0 reads in the main process
    log: SkipLog

    def __post_init__(self) -> None:
        num_processes = self.streams[0].world_size
        counts = [stream.most_samples for stream in self.streams]
        if all(count is not None and count < num_processes for count in counts):
            raise UserError(
                f"the {self.streams[0].split} split must have a sample for each of the "
                f"{num_processes} processes, not {' and '.join(map(str, counts))}"
            )

    def __len__(self) -> int:
        lengths = [stream.num_batches for stream in self.streams]
        if None in lengths:
            raise TypeError("the number of batches is not known before the shards are read")
        return sum(length for length in lengths if length is not None)

    def __iter__(self) -> Iterator[DocumentBatch]:
        has_batches = False
        skipped: Counter[str] = Counter()
        for stream in self.streams:
            is_empty = True
            reasons: Counter[str] = Counter()
            for delivery in received(stream, self.num_workers, self.log):
                reasons.update(sample.reason for sample in delivery.skipped)
                if delivery.rows is not None:
                    is_empty = False
                    yield replace(document_batch([delivery.rows]), part=stream.part)
            if is_empty and stream.world_size == 1:
                of_part = f" of {stream.part}" if stream.part else ""
                raise UserError(_nothing_serves(f"{stream.split} split{of_part}", reasons))
            has_batches |= not is_empty
            skipped += reasons
        if not has_batches:
            first = self.streams[0]
            share = f"{first.split} split in process {first.rank} of {first.world_size}"
            raise UserError(_nothing_serves(share, skipped))


def _nothing_serves(what: str, reasons: Counter[str]) -> str:
    return f"no sample of the {what} can serve: {listed(reasons) or 'it has none'}"
