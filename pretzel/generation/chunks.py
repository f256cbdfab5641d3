"""Chunks of text and images as both streams take them, for rows of different lengths."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pretzel.interleave.base import StreamInputs
from pretzel.model import Pretzel
from pretzel.typing import Bool, Float, Int, Tensor


@dataclass(frozen=True)
class TextColumns:
    """Columns of text of all rows.

    Attributes:
        tokens: Token ids; anything in columns that are not valid.
        valid: Which are attended.
        counts: Which take a place and an index: all that are valid, and the text of a null branch,
            which keeps its place unattended.
    """

    tokens: Int[Tensor, "r l"]
    valid: Bool[Tensor, "r l"]
    counts: Bool[Tensor, "r l"]

    @classmethod
    def padded(cls, rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> "TextColumns":
        """Return the columns of rows of tokens, padded on the left."""
        width = max(len(row) for row in rows)
        tokens = [[pad] * (width - len(row)) + list(row) for row in rows]
        is_there = [[False] * (width - len(row)) + [True] * len(row) for row in rows]
        valid = torch.tensor(is_there, dtype=torch.bool, device=device)
        return cls(torch.tensor(tokens, dtype=torch.long, device=device), valid, valid)

    @classmethod
    def joined(cls, blocks: Sequence["TextColumns"]) -> "TextColumns":
        """Return blocks of columns, at least one, side by side."""
        if len(blocks) == 1:
            return blocks[0]
        columns = zip(*(vars(block).values() for block in blocks), strict=True)
        return cls(*(torch.cat(parts, dim=1) for parts in columns))

    def select(self, rows: Int[Tensor, " k"]) -> "TextColumns":
        """Return the columns of the given rows."""
        return TextColumns(*(values[rows] for values in vars(self).values()))


def text_inputs(
    model: Pretzel,
    block: TextColumns,
    index: Int[Tensor, " r"],
    place: Int[Tensor, " r"],
    vision: Float[Tensor, "b n s"] | None = None,
) -> StreamInputs:
    """Return text that begins at an absolute index and at a place on the text axis.

    ``vision`` is the vision input of an image beside it, which it must be as wide as.
    """
    shape = block.tokens.shape
    offset = (block.counts.long().cumsum(dim=1) - 1).clamp(min=0)
    on_text_axis = (place[:, None] + offset)[..., None]
    on_grid = on_text_axis.new_zeros(*shape, model.packer.coordinates.shape[1])
    return StreamInputs(
        tokens=block.tokens,
        is_image=torch.zeros_like(block.valid),
        u=_no_latents(model, *shape),
        index=index[:, None] + offset,
        positions=torch.cat([on_text_axis, on_grid], dim=-1),
        vision=None if vision is None else vision.new_zeros(*shape, vision.shape[-1]),
    )


def image_inputs(
    model: Pretzel, index: Int[Tensor, " r"], place: Int[Tensor, " r"]
) -> StreamInputs:
    """Return an image that begins at an index and a place, with zeros for u."""
    offsets = torch.tensor(model.packer.index_offsets, device=index.device)
    grid = model.packer.coordinates.to(index.device)
    r, n = len(index), len(offsets)
    tokens = torch.full((r, n), model.vlm.special.pad, device=index.device)
    on_text_axis = place[:, None, None].expand(-1, n, -1)
    return StreamInputs(
        tokens=tokens,
        is_image=torch.ones_like(tokens, dtype=torch.bool),
        u=_no_latents(model, r, n),
        index=index[:, None] + offsets,
        positions=torch.cat([on_text_axis, grid.expand(r, -1, -1)], dim=-1),
    )


@dataclass(frozen=True)
class OpenImage:
    """An image that has been begun: its positions, and what each may attend of valid columns.

    Both are the same at every step but for u, and are made once.
    """

    inputs: StreamInputs
    causal: Bool[Tensor, "n k"]

    @classmethod
    def behind(
        cls, model: Pretzel, length: int, index: Int[Tensor, " r"], place: Int[Tensor, " r"]
    ) -> "OpenImage":
        """Return an image behind ``length`` columns, which begins at an index and a place."""
        n = model.latent.num_positions
        causal = torch.ones(n, length + n, dtype=torch.bool, device=index.device).tril(length)
        return cls(image_inputs(model, index, place), causal)

    def chunk(
        self, u: Float[Tensor, "r k d"], start: int, valid: Bool[Tensor, "r max_length"]
    ) -> StreamInputs:
        """Return the positions from ``start`` on, with their u."""
        image, (r, k) = self.inputs, u.shape[:2]
        stop = start + k
        keys = self.causal.shape[1] - len(self.causal) + stop
        mask = valid[:, None, None, :keys]
        if k > 1:  # a single position, the last, may attend all keys so far
            mask = mask & self.causal[start:stop, :keys]
        return StreamInputs(
            tokens=image.tokens[:r, start:stop],
            is_image=image.is_image[:r, start:stop],
            u=u,
            index=image.index[:r, start:stop],
            positions=image.positions[:r, start:stop],
            mask=mask,
        )


def _no_latents(model: Pretzel, rows: int, columns: int) -> Float[Tensor, "r l d"]:
    return torch.zeros(rows, columns, model.latent.channels, device=model.device, dtype=model.dtype)


def side_by_side(parts: Sequence[StreamInputs]) -> StreamInputs:
    """Return parts of a chunk as one, without a mask."""
    names = ["tokens", "is_image", "u", "index", "positions"]
    names += ["vision"] if parts[0].vision is not None else []
    return StreamInputs(
        **{name: torch.cat([getattr(part, name) for part in parts], dim=1) for name in names}
    )


def causal_mask(
    valid: Bool[Tensor, "r max_length"], length: int, columns: int
) -> Bool[Tensor, "r 1 l k"]:
    """Return what ``columns`` behind the first ``length`` may attend; padding at least itself."""
    end = length + columns
    valid = valid[:, :end]
    if columns == 1:
        mask = valid.clone()
        mask[:, -1] = True
        return mask[:, None, None]
    # Query j of the chunk is key (length + j): a lower-right causal mask.
    causal = torch.ones(columns, end, dtype=torch.bool, device=valid.device).tril(length)
    own = torch.zeros_like(causal)
    own[:, length:].fill_diagonal_(True)  # softmax over no key at all would be NaN
    return ((causal & valid[:, None]) | own)[:, None]


def last_valid(
    states: Float[Tensor, "r l c"], valid: Bool[Tensor, "r l"], before: Tensor | None
) -> Float[Tensor, "r c"]:
    """Return the states of the last valid column, of rows without one those from before."""
    length = valid.shape[1]
    if length == 1:
        last = states[:, 0]
    else:
        column = torch.arange(length, device=valid.device)
        place = torch.where(valid, column, 0).amax(dim=1)
        last = states[torch.arange(len(states), device=valid.device), place]
    if before is None:
        return last
    return torch.where(valid.any(dim=1, keepdim=True), last, before)
