"""A batch of token sequences: rows of positions, as both streams read them."""

from dataclasses import dataclass, replace

import torch

from pretzel.sequence.masks import Mask, causal_mask, document_mask, same_document
from pretzel.typing import Bool, Int, Tensor

IGNORE = -100  # what F.cross_entropy ignores


@dataclass(frozen=True, kw_only=True)
class PackedBatch:
    """Token sequences in rows of one length.

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
        """Return a batch of no rows; the axes are the text axis and those of the grid."""
        ids = torch.zeros(0, 0, dtype=torch.long)
        flags = ids.bool()
        positions = ids.new_zeros(0, 0, num_axes)
        return cls(
            tokens=ids, is_image=flags, is_valid=flags, index=ids, positions=positions, targets=ids
        )

    def to(self, device: torch.device | str) -> "PackedBatch":
        """Return the batch on ``device``."""
        tensors = {name: value for name, value in vars(self).items() if value is not None}
        return replace(self, **{name: value.to(device) for name, value in tensors.items()})

    @property
    def mask(self) -> Bool[Tensor, "b 1 l l"]:
        """Causal attention over valid positions of the same document, dense.

        Padding attends to itself alone.
        """
        length, device = self.tokens.shape[1], self.tokens.device
        may_attend = causal_mask(length, 0, device) & self.is_valid[:, None, None, :]
        if self.document is not None:
            may_attend &= same_document(self.document)
        # A softmax over no key at all would be NaN, so padding attends to itself.
        return may_attend | torch.eye(length, dtype=torch.bool, device=device)

    @property
    def block_mask(self) -> Mask | None:
        """The mask by blocks, for attention on a GPU that skips blocks; None where there is none.

        Rows of one document need no mask; a CPU takes the dense one. Padding attends to padding.
        """
        if self.document is None or not self.document.is_cuda:
            return None
        return document_mask(self.document)

    def places(self, where: Bool[Tensor, "b l"]) -> Int[Tensor, " p"]:
        """Return the indices of marked positions in the flattened rows, by document, by position.

        Images and supervised tokens have this order, whichever rows their documents lie in.
        """
        places = where.flatten().nonzero().squeeze(1)
        if self.document is None:
            return places
        return places[self.document.flatten()[places].argsort(stable=True)]
