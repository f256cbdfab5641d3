"""Turns documents into sequences of positions: padded, one a row, or packed, several a row.

Layout of a document: its segments in order; an image becomes begin-of-image, one position for each
place of the latent grid in raster order, end-of-image; a supervised run of text is followed by
end-of-text. Positions have an absolute index (for the vision-language model) and coordinates: a
text axis, and the row and column on the grid (zero at text). All positions of an image share one
place on the text axis.

Dropped segments have no positions, but later ones keep the absolute positions that they would have
had. Behind a dropped beginning there is nothing to attend to: that is the null context of guidance,
for later images too (:func:`pretzel.sequence.document.without_past`).

Documents that share a row do not attend to each other: each has its own absolute index and text
axis from zero, attention stays inside it, and its last position predicts nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch

from pretzel.errors import UserError
from pretzel.sequence.document import Document, Dropped, Image, Segment, Text
from pretzel.sequence.grid import grid_coordinates
from pretzel.sequence.packed_batch import PackedBatch
from pretzel.sequence.row_builder import RowBuilder, first_fit, padded
from pretzel.sequence.special_tokens import SpecialTokens


class Packer:
    """Packs documents into sequences for one tokenizer and one latent grid.

    ``image_index`` is the offset of the absolute index at each position of an image, and how far
    the index has advanced behind it; by default it advances by one a position.
    """

    def __init__(
        self,
        encode_text: Callable[[str], list[int]],
        special: SpecialTokens,
        grid: tuple[int, ...],
        image_index: tuple[list[int], int] | None = None,
    ) -> None:
        self.encode_text = encode_text
        self.special = special
        self.coordinates = grid_coordinates(grid)
        count = len(self.coordinates)
        self.index_offsets, self.index_length = image_index or (list(range(count)), count)

    def __call__(
        self,
        documents: Sequence[Document],
        *,
        pad: Literal["left", "right"] = "right",
        open_image: bool = False,
    ) -> PackedBatch:
        """Pack documents, one a row, padded on the right to train, on the left to go on generating.

        With ``open_image`` every row ends with a begin-of-image.

        Raises:
            UserError: If there are no documents, or one has no positions.
        """
        return padded(self._rows(documents, open_image), pad, self.special.pad)

    def fill(self, documents: Sequence[Document], max_length: int) -> PackedBatch:
        """Pack several documents into each row of ``max_length`` positions, first-fit decreasing.

        A longer document has a row of its own.

        Raises:
            UserError: If there are no documents, or one has no positions, or ``max_length`` is
                not positive.
        """
        if max_length < 1:
            raise UserError(f"max_length must be at least 1, got {max_length}")
        single = self._rows(documents)
        groups = first_fit([len(row.tokens) for row in single], max_length)
        joined = [RowBuilder.joined([single[number] for number in group]) for group in groups]
        packed = padded(joined, "right", self.special.pad)
        document = torch.full_like(packed.tokens, -1)
        for row, group in zip(document, groups, strict=True):
            lengths = torch.tensor([len(single[number].tokens) for number in group])
            row[: lengths.sum()] = torch.tensor(group).repeat_interleave(lengths)
        return replace(packed, document=document)

    def token_ids(self, text: Text) -> list[int]:
        """Return the token ids of a text, without the end-of-text behind a target."""
        return self.encode_text(text.content) if text.tokens is None else list(text.tokens)

    def ids_behind(self, texts: Sequence[Text]) -> list[int]:
        """Return the token ids of texts that stand before something, targets with their end."""
        ids = []
        for text in texts:
            ids += self.token_ids(text) + [self.special.end_of_text] * (text.role == "target")
        return ids

    def nothing(self) -> PackedBatch:
        """Return a batch without rows, for documents of which nothing is modelled."""
        return PackedBatch.empty(num_axes=1 + self.coordinates.shape[1])

    def _rows(self, documents: Sequence[Document], open_image: bool = False) -> list[RowBuilder]:
        if not documents:
            raise UserError("documents must hold at least one document, got none")
        rows = []
        for document in documents:
            row = self._row(document.segments)
            if open_image:
                row.add_text([self.special.begin_of_image], supervised=True)
            if not row.tokens:
                raise UserError(f"document {document.key!r} must have text or an image, has none")
            rows.append(row)
        return rows

    def _row(self, segments: Sequence[Segment]) -> RowBuilder:
        row = RowBuilder(num_axes=1 + self.coordinates.shape[1])
        for segment in segments:
            if isinstance(segment, Dropped):
                dropped = self._row(segment.segments)
                row.skip(dropped.next_index, dropped.next_place)
                continue
            if isinstance(segment, Image):
                row.add_text([self.special.begin_of_image], supervised=True)
                row.add_image(
                    self.coordinates, self.index_offsets, self.index_length, self.special.pad
                )
                row.add_text([self.special.end_of_image], supervised=False)
                continue
            tokens = self.token_ids(segment)
            if segment.role == "dropped":
                row.skip(len(tokens), len(tokens))
            elif segment.role == "target":
                row.add_text([*tokens, self.special.end_of_text], supervised=True)
            else:
                row.add_text(tokens, supervised=False)
        return row
