"""What stands in the caches of both streams, row by row, and what is still to enter them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch

from pretzel.errors import UserError
from pretzel.flow.cache import KVCache
from pretzel.generation.rows import Block, Rows
from pretzel.interleave.base import StreamCaches
from pretzel.model import Pretzel
from pretzel.sampling.guidance import Guidance
from pretzel.sequence.document import Document, Image, Segment
from pretzel.typing import Float, Int, Tensor


class CachedRows:
    """Rows of sequences in one batch, with the caches of both streams.

    Args:
        model: The model.
        num_rows: Rows.
        room: Positions that fit into a row, padding included; the caches are allocated once.

    Attributes:
        rows: Where each row stands; during an image with a null branch, those of it behind.
        caches: Of both streams; None before anything has entered them.
        is_drawing: Whether an image has been begun and not ended.
    """

    def __init__(self, model: Pretzel, num_rows: int, room: int) -> None:
        self.model = model
        self.room = room
        self.num_rows = num_rows
        self.rows = Rows.new(
            num_rows, room, model.deep.width, device=model.device, dtype=model.dtype
        )
        self.caches: StreamCaches | None = None
        self.is_drawing = False
        self._pending: list[Block] = []
        self._segments: list[Segment] = []
        self._temperature: Float[Tensor, " r"] | None = None

    @contextmanager
    def undone_on_error(self) -> Iterator[None]:
        """Leave everything as it was if what is done within does not come to its end."""
        rows = replace(self.rows, valid=self.rows.valid.clone())
        pending, segments, caches = list(self._pending), list(self._segments), self.caches
        try:
            yield
        except BaseException:
            if caches is not None:
                caches.rewind(caches.deep.length - rows.length)
            self.rows, self.caches = rows, caches
            self._pending, self._segments = pending, segments
            self._temperature, self.is_drawing = None, False
            raise

    def _take(self, other: "CachedRows", chosen: Int[Tensor, " k"]) -> None:
        """Continue the chosen rows of another."""
        self.rows = other.rows.select(chosen)
        self.caches = None if other.caches is None else other.caches.select(chosen)
        self._pending = [block.select(chosen) for block in other._pending]
        self._segments = list(other._segments)

    # What waits

    def _models(self, *segments: Segment) -> bool:
        """Return whether the interleaving models such segments behind what it has."""
        document = Document(key="", segments=(*self._segments, *segments))
        return len(self.model.interleaving.view(document).segments) == len(document.segments)

    def _begin(self) -> None:
        if not self._models(Image()):
            raise UserError(
                f"{type(self.model.interleaving).__name__} models no image behind an image: begin "
                "another sequence"
            )
        self._segments.append(Image())
        self._queue(self.rows.repeated(self.model.vlm.special.begin_of_image))

    @property
    def _pending_columns(self) -> int:
        return sum(block.tokens.shape[1] for block in self._pending)

    def _queue(self, block: Block) -> None:
        self._pending.append(block)

    # What enters

    def flush(self) -> None:
        """Run what is pending, and commit it.

        Raises:
            UserError: If text is not run without the image behind it, or there is no room.
        """
        if not self._pending:
            return
        if not self.model.interleaving.feeds_vlm:
            raise UserError(
                f"{type(self.model.interleaving).__name__} reads text together with the image "
                "behind it: it must not be flushed before"
            )
        self._commit()

    def _commit(self) -> None:
        with self.undone_on_error():
            self._enter([Block.joined(self._pending)])
            self._pending = []

    def _enter(
        self,
        blocks: Sequence[Block],
        image: Float[Tensor, "b n d"] | None = None,
        vision: Float[Tensor, "b n s"] | None = None,
    ) -> None:
        """Run a block of text, or one, an image and another, and commit it."""
        inputs, advance = self.rows.inputs(self.model, blocks, image, vision)
        if self.caches is None:
            self.caches = self.model.interleaving.new_caches(
                self.model.vlm, self.model.deep, self.rows.count, self.room, self._temperature
            )
        streams = self.model.interleaving(inputs, self.model.vlm, self.model.deep, self.caches)
        self.rows.advance(streams, advance)

    # The null branch

    def _add_null_rows(self, guidance: Guidance) -> None:
        keeps = guidance.keeps_context or not self.model.reads_text
        self._pending = [Block.joined(self._pending).with_null(keeps)]
        b = self.num_rows
        both = torch.arange(b, device=self.model.device).repeat(2)
        self.rows = self.rows.select(both)
        if not keeps:
            self.rows.valid[b:] = False
        if guidance.temperature != 1:
            self._temperature = torch.ones(2 * b, device=self.model.device, dtype=self.model.dtype)
            self._temperature[b:] = guidance.temperature
        if self.caches is not None:
            self.caches = self.caches.select(both)
            if self._temperature is not None:
                deep = self.caches.deep
                if not isinstance(deep, KVCache) or not len(deep.keys):
                    raise UserError(
                        f"{type(guidance).__name__} needs attention in the deep stream to change "
                        f"its temperature behind a prefix, got {type(deep).__name__}"
                    )
                deep.set_temperature(self._temperature)

    def _drop_null_rows(self) -> None:
        assert self.caches is not None
        if self.rows.count > self.num_rows:
            kept = torch.arange(self.num_rows, device=self.model.device)
            self.caches = self.caches.select(kept)
            self.rows = self.rows.select(kept)
            self._temperature = None
