"""Loaders: streams run in worker processes, batches are delivered in the main one.

They are plain iterables rather than ``DataLoader`` subclasses, so that Lightning neither
replaces their sampling nor prefetches (their length is known), and sees that they can resume.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import final

from torch.utils.data import DataLoader

from datamodules.streams.delivery import DeliveryStream
from datamodules.streams.eval_stream import EvalStream
from datamodules.streams.skip_log import SkipLog
from datamodules.streams.train_stream import TrainStream
from pretzel.errors import UserError
from pretzel.sequence.document import DocumentBatch


def deliver(stream: DeliveryStream, num_workers: int, log: SkipLog) -> Iterator[DocumentBatch]:
    """Yield a stream's batches; record what it skipped.

    Raises:
        UserError: If the stream reports a user's mistake or too many samples are skipped.
    """
    for delivery in DataLoader(stream, batch_size=None, num_workers=num_workers):
        log.record(delivery.skipped, delivery.seen)
        if delivery.error is not None:
            raise UserError(delivery.error)
        if delivery.batch is not None:
            yield delivery.batch


@final
class TrainLoader:
    """One epoch of training batches for each iteration.

    Args:
        stream: The stream of the first epoch.
        log: Receives the skipped samples.
        repeats: Whether every epoch has the batches of the first.
        consumed: Returns how many batches training has consumed, all epochs together. ``None``:
            the loader counts the batches it hands out, and every iteration begins a new epoch.
    """

    def __init__(
        self,
        stream: TrainStream,
        log: SkipLog,
        *,
        repeats: bool,
        consumed: Callable[[], int] | None,
    ) -> None:
        self._stream = stream
        self._log = log
        self._repeats = repeats
        self._consumed = consumed
        self._handed_out = 0
        self._resumed = False

    def __len__(self) -> int:
        return self._stream.steps

    def __iter__(self) -> Iterator[DocumentBatch]:
        # Runs when the first batch is asked for: by then the trainer has restored its progress.
        self._handed_out = self._position()
        epoch, first = divmod(self._handed_out, len(self))
        stream = replace(self._stream, epoch=0 if self._repeats else epoch, first=first)
        for batch in deliver(stream, stream.num_workers, self._log):
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
        return -(-self._handed_out // len(self)) * len(self)


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class EvalLoader:
    """Every sample of this process once, in order, in each iteration."""

    stream: EvalStream
    num_batches: int | None  # None if it is unknown before reading
    num_workers: int  # 0 reads in the main process
    log: SkipLog

    def __len__(self) -> int:
        if self.num_batches is None:
            raise TypeError("the number of batches is not known before the shards are read")
        return self.num_batches

    def __iter__(self) -> Iterator[DocumentBatch]:
        return deliver(self.stream, self.num_workers, self.log)
