"""Messages of a worker to the main process: rows of a batch, or why there are none."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from datamodules.recipes.illustrated import Illustrated
from datamodules.sample import Skipped, is_latents
from datamodules.streams.lanes import LaneState
from pretzel.errors import UserError
from pretzel.media.base import Medium
from pretzel.media.integers import stack_arrays, to_floats
from pretzel.sequence.document import Document, DocumentBatch


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of a batch, images as integers: a quarter of what floats take between processes.

    Attributes:
        documents: One document a row.
        pixels: Images that have no latents, in order of appearance.
        latents: Latents of the others, if there are any.
        has_latents: Whether each image has latents, in order of appearance.
    """

    documents: tuple[Document, ...]
    pixels: Integer[Tensor, "m ..."]
    latents: Float[Tensor, "l positions channels"] | None
    has_latents: Bool[Tensor, " i"]


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One message of a worker.

    Attributes:
        rows: Documents, None if the message only tells what was skipped.
        number: Number of the training batch whose rows they are.
        turn: Number of the worker.
        lanes: Place of its lanes behind these rows.
        counts: Documents by name of the part of the data.
        skipped: Samples skipped since the message before.
        seen: Samples looked at since the message before, usable or not.
        error: A user's mistake in one sentence. It travels as text because an exception that
            crosses processes arrives with a traceback in its message.
    """

    rows: Rows | None = None
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


def document_rows(documents: Sequence[Illustrated], medium: Medium) -> Rows:
    """Return documents, which may be without images, as rows of a batch."""
    arrays = [array for document in documents for array in document.pixels]
    latents = [array for array in arrays if is_latents(array)]
    pixels = [array for array in arrays if not is_latents(array)]
    empty = torch.zeros(0, *medium.shape, dtype=medium.dtype)
    return Rows(
        documents=tuple(document.document for document in documents),
        pixels=stack_arrays(pixels) if pixels else empty,
        latents=torch.from_numpy(np.stack(latents)) if latents else None,
        has_latents=torch.tensor([is_latents(array) for array in arrays], dtype=torch.bool),
    )


def document_batch(rows: Sequence[Rows]) -> DocumentBatch:
    """Return rows, those of one worker behind those of another, as a batch."""
    latents = [each.latents for each in rows if each.latents is not None]
    return DocumentBatch(
        documents=tuple(document for each in rows for document in each.documents),
        images=to_floats([each.pixels for each in rows]),
        latents=torch.cat(latents) if latents else None,
        has_latents=torch.cat([each.has_latents for each in rows]) if latents else None,
    )
