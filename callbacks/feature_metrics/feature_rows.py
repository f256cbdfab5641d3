"""Feature vectors that are kept, and the blocks in which pairs of them are looked at."""

from collections.abc import Iterator
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

BLOCK = 1024
"""Rows of a block: pairs of two blocks take 8 MiB in float64."""


class FeatureRows:
    """All feature vectors, in the memory of the CPU.

    10,000 of 2,048 numbers take 80 MB; whatever is computed of pairs of them goes block by block.
    Those of a file are read where they lie.
    """

    kind: ClassVar[str] = "features"

    def __init__(self) -> None:
        self._parts: list[Float[Tensor, "m f"]] = []

    def add(self, features: Float[Tensor, "m f"]) -> None:
        """Take in the features of a batch."""
        self._parts.append(features.cpu())
        self.__dict__.pop("rows", None)

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    @cached_property
    def rows(self) -> Float[Tensor, "n f"]:
        """The vectors, in order."""
        if len(self._parts) > 1:
            self._parts = [torch.cat(self._parts)]  # not twice in memory
        return self._parts[0]

    def state(self) -> Float[Tensor, "n f"]:
        """Return what a file holds, which is what torch-fidelity has in its own."""
        return self.rows

    @classmethod
    def of_state(cls, state: Float[Tensor, "n f"]) -> "FeatureRows":
        """Return the features that a file holds."""
        rows = cls()
        rows.add(state)
        return rows


def blocks(rows: Tensor, device: torch.device) -> Iterator[Tensor]:
    """Yield blocks of the rows ``[n, f]``, on the device and in float64; none of no rows."""
    for start in range(0, len(rows), BLOCK):
        yield rows[start : start + BLOCK].to(device, torch.float64)
