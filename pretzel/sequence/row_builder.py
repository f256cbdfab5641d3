"""Rows of positions under construction, and which documents share one."""

from collections.abc import Sequence
from typing import Literal

import torch

from pretzel.sequence.packed_batch import IGNORE, PackedBatch
from pretzel.typing import Tensor


def first_fit(lengths: Sequence[int], max_length: int) -> list[list[int]]:
    """Return which items share a row: longest first, each into the first row with room.

    First-fit decreasing takes at most 11/9 of the least number of rows, and 2/3 of one (Dosa 2007).

    Args:
        lengths: Length of each item.
        max_length: Room of a row; a longer item has one of its own.

    Returns:
        Numbers of the items of each row, ascending; rows by their first item.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for item in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        row = next((r for r, left in enumerate(room) if lengths[item] <= left), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(max_length)
        rows[row].append(item)
        room[row] -= lengths[item]
    return sorted(sorted(row) for row in rows)


class RowBuilder:
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
        self.is_cut = True  # Nothing, or nothing that is left, stands right before what follows.

    @classmethod
    def joined(cls, rows: "Sequence[RowBuilder]") -> "RowBuilder":
        """Return rows one after the other in one; each keeps its own index and places."""
        whole = cls(rows[0].num_axes)
        for row in rows:
            whole.tokens += row.tokens
            whole.is_image += row.is_image
            whole.targets += row.targets
            whole.index += row.index
            whole.positions += row.positions
            whole.next_index = row.next_index
        return whole

    def skip(self, num_indices: int, num_places: int) -> None:
        """Leave out what would have taken so many absolute indices and places of the text axis."""
        self.next_index += num_indices
        self.next_place += num_places
        self.is_cut = self.is_cut or num_indices > 0

    def add_text(self, tokens: list[int], supervised: bool) -> None:
        """Add text positions, as targets of the positions before them if ``supervised``."""
        for token in tokens:
            # The state before a supervised token predicts it; after image positions stands
            # end-of-image, which is forced, so a target always follows a text position.
            if supervised and not self.is_cut:
                self.targets[-1] = token
            self._add(token, is_image=False, place=[self.next_place, *[0] * (self.num_axes - 1)])
            self.next_place += 1

    def add_image(
        self, coordinates: Tensor, offsets: list[int], index_length: int, filler: int
    ) -> None:
        """Add the positions of an image; arguments as those of the packer."""
        first = self.next_index
        for coordinate, offset in zip(coordinates.tolist(), offsets, strict=True):
            self.next_index = first + offset
            self._add(filler, is_image=True, place=[self.next_place, *coordinate])
        self.next_index = first + index_length
        self.next_place += 1

    def _add(self, token: int, is_image: bool, place: list[int]) -> None:
        self.tokens.append(token)
        self.is_image.append(is_image)
        self.targets.append(IGNORE)
        self.index.append(self.next_index)
        self.positions.append(place)
        self.next_index += 1
        self.is_cut = False

    def padded(self, length: int, side: Literal["left", "right"], pad: int) -> PackedBatch:
        """Return the row as a batch, padded to a length."""
        missing = length - len(self.tokens)
        # Padding takes indices that go on from the row's, so that they stay contiguous.
        if side == "right":
            index = [*self.index, *range(self.next_index, self.next_index + missing)]
        else:
            index = [0] * missing + self.index
        before, after = (0, missing) if side == "right" else (missing, 0)
        is_valid = [False] * before + [True] * len(self.tokens) + [False] * after
        nowhere = [0] * self.num_axes
        return PackedBatch(
            tokens=torch.tensor([[pad] * before + self.tokens + [pad] * after]),
            is_image=torch.tensor([[False] * before + self.is_image + [False] * after]),
            is_valid=torch.tensor([is_valid]),
            index=torch.tensor([index]),
            positions=torch.tensor([[nowhere] * before + self.positions + [nowhere] * after]),
            targets=torch.tensor([[IGNORE] * before + self.targets + [IGNORE] * after]),
        )
