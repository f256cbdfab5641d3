"""The batch as the streams read it: rows of positions."""

from dataclasses import dataclass, replace

import torch

from pretzel.sequence.masks import Mask, document_mask
from pretzel.typing import Bool, Int, Tensor

IGNORE = -100


@dataclass(frozen=True, kw_only=True)
class PackedBatch:
    """Sequences in rows of one length.

    Attributes:
        tokens: Token ids; the pad id at image positions.
        is_image: True at image positions.
        is_valid: False at padding.
        index: Absolute index in the document.
        positions: Text axis, then the coordinates of the grid.
        targets: Token that follows each position, where it is supervised; -100 elsewhere.
        document: Number of the document at each position, -1 at padding; None where every row
            holds one document, in order.
    """

    tokens: Int[Tensor, "b l"]
    is_image: Bool[Tensor, "b l"]
    is_valid: Bool[Tensor, "b l"]
    index: Int[Tensor, "b l"]
    positions: Int[Tensor, "b l a"]
    targets: Int[Tensor, "b l"]
    document: Int[Tensor, "b l"] | None = None

    @classmethod
    def empty(cls, *, num_axes: int) -> "PackedBatch":
        """Return a batch of no rows.

        Args:
            num_axes: The text axis and those of the grid.
        """
        ids = torch.zeros(0, 0, dtype=torch.long)
        marks = ids.bool()
        return cls(
            tokens=ids,
            is_image=marks,
            is_valid=marks,
            index=ids,
            positions=ids.new_zeros(0, 0, num_axes),
            targets=ids,
        )

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
            document=None if self.document is None else self.document.to(device),
        )

    @property
    def mask(self) -> Bool[Tensor, "b 1 l l"]:
        """Causal attention over valid positions of the same document, dense.

        Padding attends to itself alone.
        """
        length = self.tokens.shape[1]
        device = self.tokens.device
        seen = torch.ones(length, length, dtype=torch.bool, device=device).tril()
        seen = seen & self.is_valid[:, None, :]
        if self.document is not None:
            seen = seen & (self.document[:, :, None] == self.document[:, None])
        diagonal = torch.eye(length, dtype=torch.bool, device=device)
        return (seen | diagonal)[:, None]

    @property
    def block_mask(self) -> Mask | None:
        """The same by blocks, for attention on a GPU that skips blocks; None where there is none.

        Rows of one document need no mask; a CPU takes the dense one. Padding attends to padding.
        """
        if self.document is None or not self.document.is_cuda:
            return None
        return document_mask(self.document)

    def places(self, where: Bool[Tensor, "b l"]) -> Int[Tensor, " p"]:
        """Return where ``where`` is true, in order of documents, then of their positions.

        So are images and supervised tokens ordered, whichever rows the documents lie in.

        Args:
            where: Marks positions.

        Returns:
            Indices of positions, rows one after the other.
        """
        places = where.flatten().nonzero().squeeze(1)
        if self.document is None:
            return places
        return places[self.document.flatten()[places].argsort(stable=True)]
