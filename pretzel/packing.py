"""Documents packed into padded sequences of positions.

Layout of a document: its segments in order; an image becomes begin-of-image, one position for each
place of the latent grid in raster order, end-of-image; a supervised run of text is followed by
end-of-text. Positions have an absolute index (for the vision-language model) and coordinates: a
text axis, and the row and column on the grid (zero at text). All positions of an image share one
place on the text axis.

A dropped caption leaves no positions but keeps its place: what follows has the absolute positions
it would have had, and nothing before it to attend to. That is the null context of guidance too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import torch

from pretzel.errors import UserError
from pretzel.flow.positions import grid_coordinates
from pretzel.sequence import Document, Image
from pretzel.typing import Bool, Int, Tensor
from pretzel.vlm.base import SpecialTokens

T = TypeVar("T")

IGNORE = -100


@dataclass(frozen=True, kw_only=True)
class PackedBatch:
    """Padded sequences.

    Attributes:
        tokens: Token ids; the pad id at image positions.
        is_image: True at image positions; row by row they are those of the images in order.
        is_valid: False at padding.
        index: Absolute index in the row.
        positions: Text axis, then the coordinates of the grid.
        targets: Token that follows each position, where it is supervised; -100 elsewhere.
    """

    tokens: Int[Tensor, "b l"]
    is_image: Bool[Tensor, "b l"]
    is_valid: Bool[Tensor, "b l"]
    index: Int[Tensor, "b l"]
    positions: Int[Tensor, "b l a"]
    targets: Int[Tensor, "b l"]

    def to(self, device: torch.device | str) -> "PackedBatch":
        """Return the batch on ``device``."""
        return replace(
            self,
            tokens=self.tokens.to(device),
            is_image=self.is_image.to(device),
            is_valid=self.is_valid.to(device),
            index=self.index.to(device),
            positions=self.positions.to(device),
            targets=self.targets.to(device),
        )

    @property
    def mask(self) -> Bool[Tensor, "b 1 l l"]:
        """Causal attention over valid positions; padding attends to itself alone."""
        length = self.tokens.shape[1]
        device = self.tokens.device
        causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()
        diagonal = torch.eye(length, dtype=torch.bool, device=device)
        return ((causal & self.is_valid[:, None, :]) | diagonal)[:, None]


class Packer:
    """Turns documents into sequences for one tokenizer and one latent grid.

    Args:
        encode_text: Token ids of a text.
        special: Special tokens.
        grid: Latent grid of an image.
    """

    def __init__(
        self,
        encode_text: Callable[[str], list[int]],
        special: SpecialTokens,
        grid: tuple[int, ...],
    ) -> None:
        self.encode_text = encode_text
        self.special = special
        self.coordinates = grid_coordinates(grid)

    def __call__(
        self,
        documents: Sequence[Document],
        *,
        pad: Literal["left", "right"] = "right",
        open_image: bool = False,
    ) -> PackedBatch:
        """Pack documents.

        Args:
            documents: At least one document.
            pad: Side of the padding: right to train, left to go on generating.
            open_image: End every row with a begin-of-image.

        Raises:
            UserError: If there are no documents, or one has no positions.
        """
        if not documents:
            raise UserError("documents must hold at least one document, got none")
        rows = [self._row(document, open_image) for document in documents]
        length = max(len(row.tokens) for row in rows)
        return _stack([row.padded(length, pad, self.special.pad) for row in rows])

    def _row(self, document: Document, open_image: bool) -> "_Row":
        row = _Row(num_axes=1 + self.coordinates.shape[1])
        for segment in document.segments:
            if isinstance(segment, Image):
                row.add_text([self.special.begin_of_image], supervised=True)
                row.add_image(self.coordinates, self.special.pad)
                row.add_text([self.special.end_of_image], supervised=False)
                continue
            tokens = self.encode_text(segment.content)
            if segment.role == "dropped":
                row.skip(len(tokens))
            elif segment.role == "target":
                row.add_text([*tokens, self.special.end_of_text], supervised=True)
            else:
                row.add_text(tokens, supervised=False)
        if open_image:
            row.add_text([self.special.begin_of_image], supervised=True)
        if not row.tokens:
            raise UserError(f"document {document.key!r} must have text or an image, it has none")
        return row


class _Row:
    """One sequence under construction."""

    def __init__(self, num_axes: int) -> None:
        self.tokens: list[int] = []
        self.is_image: list[bool] = []
        self.targets: list[int] = []
        self.index: list[int] = []
        self.positions: list[list[int]] = []
        self.num_axes = num_axes
        self.next_index = 0
        self.next_place = 0

    def skip(self, count: int) -> None:
        self.next_index += count
        self.next_place += count

    def add_text(self, tokens: list[int], supervised: bool) -> None:
        for token in tokens:
            # The state before a supervised token predicts it; after image positions stands
            # end-of-image, which is forced, so a target always follows a text position.
            if supervised and self.tokens:
                self.targets[-1] = token
            self._add(token, is_image=False, place=[self.next_place, *[0] * (self.num_axes - 1)])
            self.next_place += 1

    def add_image(self, coordinates: Tensor, filler: int) -> None:
        for coordinate in coordinates.tolist():
            self._add(filler, is_image=True, place=[self.next_place, *coordinate])
        self.next_place += 1

    def _add(self, token: int, is_image: bool, place: list[int]) -> None:
        self.tokens.append(token)
        self.is_image.append(is_image)
        self.targets.append(IGNORE)
        self.index.append(self.next_index)
        self.positions.append(place)
        self.next_index += 1

    def padded(self, length: int, side: Literal["left", "right"], pad: int) -> PackedBatch:
        missing = length - len(self.tokens)
        # Padding takes indices that go on from the row's, so that they stay contiguous.
        if side == "right":
            index = [*self.index, *range(self.next_index, self.next_index + missing)]
        else:
            index = [0] * missing + self.index

        def fill(values: list[T], filler: T) -> list[T]:
            padding = [filler] * missing
            return values + padding if side == "right" else padding + values

        return PackedBatch(
            tokens=torch.tensor([fill(self.tokens, pad)]),
            is_image=torch.tensor([fill(self.is_image, False)]),
            is_valid=torch.tensor([fill([True] * len(self.tokens), False)]),
            index=torch.tensor([index]),
            positions=torch.tensor([fill(self.positions, [0] * self.num_axes)]),
            targets=torch.tensor([fill(self.targets, IGNORE)]),
        )


def _stack(rows: Sequence[PackedBatch]) -> PackedBatch:
    return PackedBatch(
        tokens=torch.cat([row.tokens for row in rows]),
        is_image=torch.cat([row.is_image for row in rows]),
        is_valid=torch.cat([row.is_valid for row in rows]),
        index=torch.cat([row.index for row in rows]),
        positions=torch.cat([row.positions for row in rows]),
        targets=torch.cat([row.targets for row in rows]),
    )
