"""Messages of a worker to the main process: a batch, or the reason why there is none."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.utils.data import IterableDataset, get_worker_info

from datamodules.recipes.illustrated import Illustrated
from datamodules.sample import Skipped
from pretzel.errors import UserError
from pretzel.latent.image_input import scale_pixels
from pretzel.sequence.document import DocumentBatch


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One message of a worker."""

    batch: DocumentBatch | None = None
    skipped: tuple[Skipped, ...] = ()  # since the message before
    seen: int = 0  # raw samples looked at since then, usable or not
    # A user's mistake in one sentence. It travels as text because an exception that crosses
    # processes arrives with a traceback in its message.
    error: str | None = None


class DeliveryStream(IterableDataset[Delivery], ABC):
    """Deliveries of one process, whose workers take turns; a ``UserError`` ends them as text."""

    @abstractmethod
    def deliveries(self, turn: int, turns: int) -> Iterator[Delivery]:
        """Yield what worker ``turn`` of ``turns`` delivers."""

    def __iter__(self) -> Iterator[Delivery]:
        worker = get_worker_info()
        turn, turns = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        try:
            yield from self.deliveries(turn, turns)
        except UserError as error:
            yield Delivery(error=str(error))


class BatchBuilder:
    """Collects documents until a batch, which may be without images, is full."""

    def __init__(self, batch_size: int, image_size: int) -> None:
        self._batch_size = batch_size
        self._image_size = image_size
        self._documents: list[Illustrated] = []
        self._skipped: list[Skipped] = []
        self.seen = 0  # raw samples since the last delivery

    def skip(self, sample: Skipped) -> None:
        """Note a sample that cannot serve."""
        self._skipped.append(sample)

    def add(self, document: Illustrated) -> Iterator[Delivery]:
        """Add one document; yield the batch if this fills it."""
        self._documents.append(document)
        if len(self._documents) == self._batch_size:
            yield from self.flush()

    def flush(self) -> Iterator[Delivery]:
        """Yield the collected documents as a batch, if any."""
        documents, skipped, seen = self._documents, tuple(self._skipped), self.seen
        self._documents, self._skipped, self.seen = [], [], 0
        if documents:
            pixels = [pixels for document in documents for pixels in document.pixels]
            size = self._image_size
            batch = DocumentBatch(
                documents=tuple(document.document for document in documents),
                images=scale_pixels(pixels) if pixels else torch.zeros(0, 3, size, size),
            )
            yield Delivery(batch=batch, skipped=skipped, seen=seen)
        elif skipped:
            yield Delivery(skipped=skipped, seen=seen)
