"""Builds one row of positions, and chooses which documents share one."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch.nn.utils.rnn import pad_sequence

from pretzel.sequence.packed_batch import IGNORE, PackedBatch
from pretzel.typing import Tensor


def first_fit(lengths: Sequence[int], max_length: int) -> list[list[int]]:
    """Return which items share a row: longest first, each into the first row with room.

    First-fit decreasing takes at most 11/9 of the least number of rows, and 2/3 of one (Dosa 2007).
    An item longer than a row has one of its own. The numbers in a row ascend, and rows are in the
    order of their first item.
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
    """Builds one sequence: lists with an entry for each position, which has ``num_axes``."""

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


def padded(rows: Sequence[RowBuilder], side: Literal["left", "right"], pad: int) -> PackedBatch:
    """Return rows as a batch, padded to the longest of them; ``pad`` fills the tokens."""
    length = max(len(row.tokens) for row in rows)

    def column(values: Iterable[list[Any]], filler: int) -> Tensor:
        tensors = [torch.tensor(row) for row in values]
        return pad_sequence(tensors, batch_first=True, padding_value=filler, padding_side=side)

    def index(row: RowBuilder) -> list[int]:
        # Padding on the right continues the row's index, so that it stays contiguous.
        missing = length - len(row.tokens) if side == "right" else 0
        return [*row.index, *range(row.next_index, row.next_index + missing)]

    return PackedBatch(
        tokens=column((row.tokens for row in rows), pad),
        is_image=column((row.is_image for row in rows), False),
        is_valid=column(([True] * len(row.tokens) for row in rows), False),
        index=column(map(index, rows), 0),
        positions=column((row.positions for row in rows), 0),
        targets=column((row.targets for row in rows), IGNORE),
    )
