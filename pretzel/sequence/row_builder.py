"""Builds one row of positions, and chooses which documents share one."""

from collections.abc import Sequence
from typing import Any, Literal

import torch

from pretzel.sequence.packed_batch import IGNORE, PackedBatch
from pretzel.typing import Tensor


def first_fit(lengths: Sequence[int], max_length: int) -> list[list[int]]:
    """Return which items share a row: longest first, each into the first row with room.

    First-fit decreasing takes at most 11/9 of the least number of rows, and 2/3 of one (Dosa 2007).

    Args:
        lengths: Length of each item.
        max_length: Length of a row; a longer item has a row of its own.

    Returns:
        Numbers of the items of each row, ascending; rows by their first item.
    """
    rows: list[list[int]] = []
    free: list[int] = []
    for item in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        row = next((r for r, space in enumerate(free) if lengths[item] <= space), len(rows))
        if row == len(rows):
            rows.append([])
            free.append(max_length)
        rows[row].append(item)
        free[row] -= lengths[item]
    return sorted(sorted(row) for row in rows)


class RowBuilder:
    """Builds one sequence: lists with an entry for each position.

    Args:
        num_axes: Axes of a position: the text axis and those of the grid.
    """

    def __init__(self, num_axes: int) -> None:
        self.tokens: list[int] = []
        self.is_image: list[bool] = []
        self.targets: list[int] = []
        self.index: list[int] = []
        self.positions: list[list[int]] = []
        self.num_axes = num_axes
        self.next_index = 0
        self.next_place = 0
        self.is_cut = True  # The position before is dropped, or there is none: it predicts nothing.

    @classmethod
    def joined(cls, rows: "Sequence[RowBuilder]") -> "RowBuilder":
        """Return one row of several, one after the other; each keeps its index and positions."""
        joined = cls(rows[0].num_axes)
        for row in rows:
            joined.tokens += row.tokens
            joined.is_image += row.is_image
            joined.targets += row.targets
            joined.index += row.index
            joined.positions += row.positions
            joined.next_index = row.next_index
        return joined

    def skip(self, num_indices: int, num_places: int) -> None:
        """Leave absolute indices and places on the text axis free, those of dropped segments."""
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
        before, after = (0, missing) if side == "right" else (missing, 0)

        def column(values: list[Any], filler: object) -> Tensor:
            return torch.tensor([[filler] * before + values + [filler] * after])

        # Padding on the right continues the row's index, so that it stays contiguous.
        index = [*self.index, *range(self.next_index, self.next_index + after)]
        return PackedBatch(
            tokens=column(self.tokens, pad),
            is_image=column(self.is_image, False),
            is_valid=column([True] * len(self.tokens), False),
            index=torch.tensor([[0] * before + index]),
            positions=column(self.positions, [0] * self.num_axes),
            targets=column(self.targets, IGNORE),
        )
