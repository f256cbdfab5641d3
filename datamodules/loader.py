"""Loaders: streams run in worker processes, batches are delivered in the main one.

They are plain iterables rather than ``DataLoader`` subclasses, so that Lightning neither
replaces their sampling nor prefetches (their length is known), and sees that they can resume.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import final

from torch.utils.data import DataLoader, IterableDataset

from datamodules.corruption import CorruptionLog
from datamodules.delivery import Delivery
from datamodules.eval_stream import EvalStream
from datamodules.train_stream import TrainStream
from pretzel.errors import UserError
from pretzel.sequence.document import DocumentBatch


@final
class _Dataset(IterableDataset[Delivery]):
    def __init__(self, stream: Iterable[Delivery]) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[Delivery]:
        return iter(self._stream)


def deliver(
    stream: Iterable[Delivery], num_workers: int, log: CorruptionLog
) -> Iterator[DocumentBatch]:
    """Yield a stream's batches; record what it skipped.

    Args:
        stream: Yields deliveries.
        num_workers: Worker processes; 0 reads here.
        log: Receives the unreadable samples.

    Raises:
        UserError: If the stream reports a user's mistake or too many samples are unreadable.
    """
    loader = DataLoader(_Dataset(stream), batch_size=None, num_workers=num_workers)
    for delivery in loader:
        log.record(delivery.corrupt)
        if delivery.error is not None:
            raise UserError(delivery.error)
        if delivery.batch is not None:
            yield delivery.batch


@final
class TrainLoader:
    """One epoch of training batches for each iteration.

    Args:
        open_stream: Makes the stream of an epoch from a batch on.
        steps: Batches of an epoch.
        num_workers: Worker processes; 0 reads in the main one.
        log: Receives the unreadable samples.
        consumed: Returns how many batches training has consumed, all epochs together. ``None``:
            the loader counts the batches it hands out, and every iteration begins a new epoch.
    """

    def __init__(
        self,
        open_stream: Callable[[int, int], TrainStream],
        *,
        steps: int,
        num_workers: int,
        log: CorruptionLog,
        consumed: Callable[[], int] | None = None,
    ) -> None:
        self._open_stream = open_stream
        self._steps = steps
        self._num_workers = num_workers
        self._log = log
        self._consumed = consumed
        self._handed_out = 0
        self._resumed = False

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[DocumentBatch]:
        # Runs when the first batch is asked for: by then the trainer has restored its progress.
        epoch, first = divmod(self._position(), self._steps)
        self._handed_out = epoch * self._steps + first
        for batch in deliver(self._open_stream(epoch, first), self._num_workers, self._log):
            self._handed_out += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the number of batches consumed."""
        return {"consumed": self._handed_out if self._consumed is None else self._consumed()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue behind the batches that were consumed."""
        self._handed_out = state["consumed"]
        self._resumed = True

    def _position(self) -> int:
        if self._consumed is not None:
            return self._consumed()
        if self._resumed:
            self._resumed = False
            return self._handed_out
        return -(-self._handed_out // self._steps) * self._steps


@final
@dataclass(frozen=True, eq=False)
class EvalLoader:
    """Every sample of this process once, in order, in each iteration.

    Attributes:
        stream: The samples.
        num_batches: Number of batches, ``None`` if it is unknown before reading.
        num_workers: Worker processes; 0 reads in the main one.
        log: Receives the unreadable samples.
    """

    stream: EvalStream
    num_batches: int | None = field(kw_only=True)
    num_workers: int = field(kw_only=True)
    log: CorruptionLog = field(kw_only=True)

    def __len__(self) -> int:
        if self.num_batches is None:
            raise TypeError("the number of batches is not known before the shards are read")
        return self.num_batches

    def __iter__(self) -> Iterator[DocumentBatch]:
        return deliver(self.stream, self.num_workers, self.log)
