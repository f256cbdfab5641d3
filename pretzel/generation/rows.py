"""Where the rows of a generation stand: what is attended, which index is next, the last states."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pretzel.errors import UserError
from pretzel.interleave.base import StreamInputs, StreamOutputs
from pretzel.model import Pretzel
from pretzel.typing import Bool, Float, Int, Tensor


@dataclass(frozen=True, kw_only=True)
class Block:
    """Columns of text of all rows.

    Attributes:
        tokens: Token ids; anything in columns that are not valid.
        valid: Which are attended.
        counts: Which take a place and an index: all that are valid, and dropped text.
    """

    tokens: Int[Tensor, "r l"]
    valid: Bool[Tensor, "r l"]
    counts: Bool[Tensor, "r l"]

    @classmethod
    def joined(cls, blocks: Sequence["Block"]) -> "Block":
        """Return blocks, at least one, side by side."""
        if len(blocks) == 1:
            return blocks[0]
        return cls(
            tokens=torch.cat([block.tokens for block in blocks], dim=1),
            valid=torch.cat([block.valid for block in blocks], dim=1),
            counts=torch.cat([block.counts for block in blocks], dim=1),
        )

    def select(self, rows: Int[Tensor, " k"]) -> "Block":
        """Return the columns of the given rows."""
        return Block(tokens=self.tokens[rows], valid=self.valid[rows], counts=self.counts[rows])

    def with_null(self, keeps_context: bool) -> "Block":
        """Return the rows twice; the second time all but the last column are dropped."""
        null = self.valid.clone()
        if not keeps_context:
            null[:, :-1] = False
        return Block(
            tokens=self.tokens.repeat(2, 1),
            valid=torch.cat([self.valid, null]),
            counts=self.counts.repeat(2, 1),
        )


def text_block(rows: Sequence[Sequence[tuple[int, bool]]], pad: int, device: torch.device) -> Block:
    """Return the columns of rows of (token, whether attended), padded on the left."""
    width = max(len(row) for row in rows)
    tokens = [[pad] * (width - len(row)) + [token for token, _ in row] for row in rows]
    valid = [[False] * (width - len(row)) + [attended for _, attended in row] for row in rows]
    counts = [[False] * (width - len(row)) + [True] * len(row) for row in rows]
    return Block(
        tokens=torch.tensor(tokens, dtype=torch.long, device=device),
        valid=torch.tensor(valid, dtype=torch.bool, device=device),
        counts=torch.tensor(counts, dtype=torch.bool, device=device),
    )


@dataclass(kw_only=True)
class Rows:
    """The state of all rows.

    Attributes:
        room: Columns that fit.
        length: Columns committed so far, the same in every row.
        valid: Which columns are attended.
        next_index: Absolute index of the next position.
        place: Its place on the text axis.
        state: State of the deep stream at the last position of each row.
        text: What the language head reads there; None before any text has been run.
    """

    room: int
    length: int
    valid: Bool[Tensor, "r room"]
    next_index: Int[Tensor, " r"]
    place: Int[Tensor, " r"]
    state: Float[Tensor, "r w"]
    text: Float[Tensor, "r h"] | None

    @classmethod
    def new(
        cls, count: int, room: int, width: int, *, device: torch.device, dtype: torch.dtype
    ) -> "Rows":
        """Return empty rows."""
        return cls(
            room=room,
            length=0,
            valid=torch.zeros(count, room, dtype=torch.bool, device=device),
            next_index=torch.zeros(count, dtype=torch.long, device=device),
            place=torch.zeros(count, dtype=torch.long, device=device),
            state=torch.zeros(count, width, device=device, dtype=dtype),
            text=None,
        )

    @property
    def count(self) -> int:
        """Rows, those of a null branch included."""
        return len(self.valid)

    def select(self, rows: Int[Tensor, " k"]) -> "Rows":
        """Return the given rows (repeats allowed)."""
        return Rows(
            room=self.room,
            length=self.length,
            valid=self.valid[rows],
            next_index=self.next_index[rows],
            place=self.place[rows],
            state=self.state[rows],
            text=None if self.text is None else self.text[rows],
        )

    def repeated(self, token: int) -> Block:
        """Return one token in every row."""
        here = torch.ones(self.count, 1, dtype=torch.bool, device=self.valid.device)
        return Block(tokens=torch.full_like(here, token, dtype=torch.long), valid=here, counts=here)

    def require_room(self, columns: int) -> None:
        """Refuse columns that do not fit.

        Raises:
            UserError: If there is no room for them.
        """
        if self.length + columns > self.room:
            raise UserError(
                f"the sequence must fit into the room of its caches, {self.room} positions, got "
                f"{self.length} + {columns}"
            )

    def inputs(
        self,
        model: Pretzel,
        blocks: Sequence[Block],
        image: Float[Tensor, "r n d"] | None = None,
        vision: Float[Tensor, "r n s"] | None = None,
    ) -> tuple[StreamInputs, "Advance"]:
        """Return the next columns, and where the rows stand behind them.

        Args:
            model: The model.
            blocks: Text; with an image that which stands before it, then that behind it.
            image: u of an image of every row.
            vision: What the vision-language model is shown of it; None for u.

        Raises:
            UserError: If they do not fit.
        """
        axes = model.packer.coordinates.shape[1]
        index, place = self.next_index[:, None], self.place[:, None]
        parts: list[tuple[Tensor, ...]] = []
        for number, block in enumerate(blocks):
            if number and image is not None:
                layout = self.image_layout(model, index[:, 0], place[:, 0])
                parts.append((*layout, torch.ones_like(layout[1])))
                index = index + model.packer.index_length
                place = place + 1
            offset = block.counts.long().cumsum(dim=1)
            at = (place + (offset - 1).clamp(min=0))[..., None]
            positions = torch.cat([at, at.new_zeros(*at.shape[:2], axes)], dim=-1)
            no_image = torch.zeros_like(block.valid)
            own_index = index + (offset - 1).clamp(min=0)
            parts.append((block.tokens, no_image, own_index, positions, block.valid))
            index, place = index + offset[:, -1:], place + offset[:, -1:]
        tokens, is_image, own_index, positions, valid = (
            torch.cat(columns, dim=1) for columns in zip(*parts, strict=True)
        )
        columns = tokens.shape[1]
        self.require_room(columns)
        self.valid[:, self.length : self.length + columns] = valid
        dense = torch.zeros(
            *tokens.shape, model.latent.channels, device=model.device, dtype=model.dtype
        )
        dense_vision = None
        if image is not None:
            first = blocks[0].tokens.shape[1]
            dense[:, first : first + image.shape[1]] = image
            if vision is not None:
                dense_vision = vision.new_zeros(*tokens.shape, vision.shape[-1])
                dense_vision[:, first : first + image.shape[1]] = vision
        inputs = StreamInputs(
            tokens=tokens,
            is_image=is_image,
            u=dense,
            index=own_index,
            positions=positions,
            mask=self.mask(columns),
            vision=dense_vision,
        )
        return inputs, Advance(valid=valid, next_index=index[:, 0], place=place[:, 0])

    def mask(self, columns: int) -> Bool[Tensor, "r 1 l k"]:
        """Return what the next columns may attend; padding attends to itself at least."""
        end = self.length + columns
        valid = self.valid[:, :end]
        if columns == 1:
            mask = valid.clone()
            mask[:, -1] = True
            return mask[:, None, None]
        # Query j of the chunk is key (length + j): a lower-right causal mask.
        causal = torch.ones(columns, end, dtype=torch.bool, device=valid.device).tril(self.length)
        own = torch.zeros_like(causal)
        own[:, self.length :].fill_diagonal_(True)
        return ((causal & valid[:, None]) | own)[:, None]

    def image_layout(
        self, model: Pretzel, index: Int[Tensor, " r"], place: Int[Tensor, " r"]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return tokens, is_image, index and positions of an image that begins there."""
        device = self.valid.device
        offsets = torch.tensor(model.packer.index_offsets, device=device)
        coordinates = model.packer.coordinates.to(device)
        r, n = len(index), len(offsets)
        tokens = torch.full((r, n), model.vlm.special.pad, device=device)
        positions = torch.cat(
            [place[:, None, None].expand(-1, n, -1), coordinates.expand(r, -1, -1)], dim=-1
        )
        is_image = torch.ones_like(tokens, dtype=torch.bool)
        return tokens, is_image, index[:, None] + offsets, positions

    def image_inputs(
        self, model: Pretzel, u: Float[Tensor, "r n d"], vision: Float[Tensor, "r n s"]
    ) -> StreamInputs:
        """Return the image that has just been committed to the deep stream, once more."""
        n = u.shape[1]
        tokens, is_image, index, positions = self.image_layout(
            model, self.next_index - model.packer.index_length, self.place - 1
        )
        causal = torch.ones(n, self.length, dtype=torch.bool, device=u.device)
        mask = self.valid[:, None, None, : self.length] & causal.tril(self.length - n)
        return StreamInputs(
            tokens=tokens,
            is_image=is_image,
            u=u,
            index=index,
            positions=positions,
            mask=mask,
            vision=vision,
        )

    def advance(self, streams: StreamOutputs, by: "Advance") -> None:
        """Go on behind columns that have been committed."""
        self.length += by.valid.shape[1]
        self.next_index, self.place = by.next_index, by.place
        self.state = _last(streams.deep, by.valid, self.state)
        if streams.text is not None:
            self.text = _last(streams.text, by.valid, self.text)


@dataclass(frozen=True, kw_only=True)
class Advance:
    """Where rows stand behind new columns.

    Attributes:
        valid: Which of the columns are attended.
        next_index: Absolute index of the next position.
        place: Its place on the text axis.
    """

    valid: Bool[Tensor, "r l"]
    next_index: Int[Tensor, " r"]
    place: Int[Tensor, " r"]


def _last(
    states: Float[Tensor, "r l c"], valid: Bool[Tensor, "r l"], before: Tensor | None
) -> Float[Tensor, "r c"]:
    """Return the states of the last valid column, of rows without one those from before."""
    length = valid.shape[1]
    if length == 1:
        last = states[:, 0]
    else:
        number = torch.arange(length, device=valid.device)
        place = torch.where(valid, number, 0).amax(dim=1)
        last = states[torch.arange(len(states), device=valid.device), place]
    if before is None:
        return last
    return torch.where(valid.any(dim=1, keepdim=True), last, before)
