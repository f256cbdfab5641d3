"""Messages of a worker to the main process: a batch or a part of one, or why there is none."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from datamodules.recipes.illustrated import Illustrated
from datamodules.sample import Skipped, is_latents
from datamodules.streams.lanes import LaneState
from pretzel.errors import UserError
from pretzel.latent.image_input import scale_pixels
from pretzel.sequence.document import DocumentBatch


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One message of a worker.

    Attributes:
        batch: Documents, None if the message only tells what was skipped.
        number: Number of the training batch of which they are a part.
        turn: Number of the worker.
        lanes: Place of its lanes behind this batch.
        counts: Documents of the batch by name of the part of the data.
        skipped: Samples skipped since the message before.
        seen: Samples looked at since the message before, usable or not.
        error: A user's mistake in one sentence. It travels as text because an exception that
            crosses processes arrives with a traceback in its message.
    """

    batch: DocumentBatch | None = None
    number: int = 0
    turn: int = 0
    lanes: Mapping[int, LaneState] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    skipped: tuple[Skipped, ...] = ()
    seen: int = 0
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


def document_batch(documents: Sequence[Illustrated], image_size: int) -> DocumentBatch:
    """Return documents as a batch, which may be without images."""
    arrays = [array for document in documents for array in document.pixels]
    latents = [array for array in arrays if is_latents(array)]
    pixels = [array for array in arrays if not is_latents(array)]
    return DocumentBatch(
        documents=tuple(document.document for document in documents),
        images=scale_pixels(pixels) if pixels else torch.zeros(0, 3, image_size, image_size),
        latents=torch.from_numpy(np.stack(latents)) if latents else None,
        has_latents=torch.tensor([is_latents(array) for array in arrays]) if latents else None,
    )


def joined(batches: Sequence[DocumentBatch]) -> DocumentBatch:
    """Return one batch of the documents of several."""
    if len(batches) == 1:
        return batches[0]
    latents = [batch.latents for batch in batches if batch.latents is not None]
    return DocumentBatch(
        documents=tuple(document for batch in batches for document in batch.documents),
        images=torch.cat([batch.images for batch in batches]),
        latents=torch.cat(latents) if latents else None,
        has_latents=torch.cat([_has_latents(batch) for batch in batches]) if latents else None,
    )


def _has_latents(batch: DocumentBatch) -> Bool[Tensor, " i"]:
    known = batch.has_latents
    return torch.zeros(len(batch.images), dtype=torch.bool) if known is None else known
