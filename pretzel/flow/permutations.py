"""Scan orders: the order in which a block visits the latent grid."""

import math
from abc import ABC, abstractmethod

import torch

from pretzel.errors import UserError
from pretzel.rng import stream
from pretzel.typing import Int, Tensor


class Permutation(ABC):
    """A scan order of an n-D grid."""

    @abstractmethod
    def order(self, grid: tuple[int, ...]) -> Int[Tensor, " n"]:
        """Return the raster index visited at each step, a permutation of 0..N-1."""


class Raster(Permutation):
    """Rows from top to bottom, each from left to right: the identity."""

    def order(self, grid: tuple[int, ...]) -> Int[Tensor, " n"]:
        """Return 0..N-1."""
        return torch.arange(math.prod(grid))


class Flip(Permutation):
    """The raster order backwards (TARFlow, STARFlow)."""

    def order(self, grid: tuple[int, ...]) -> Int[Tensor, " n"]:
        """Return N-1..0."""
        return torch.arange(math.prod(grid)).flip(0)


class ColumnMajor(Permutation):
    """Columns from left to right, each from top to bottom; grids of two axes or more.

    Args:
        flip: Walk it backwards.
    """

    def __init__(self, flip: bool = False) -> None:
        self.flip = flip

    def order(self, grid: tuple[int, ...]) -> Int[Tensor, " n"]:
        """Swap the last two axes.

        Raises:
            UserError: If the grid has one axis only.
        """
        if len(grid) < 2:
            raise UserError(f"ColumnMajor needs a grid of two axes or more, got grid={grid}")
        index = torch.arange(math.prod(grid)).reshape(grid).transpose(-1, -2).flatten()
        return index.flip(0) if self.flip else index


class FlipWithinFrame(Permutation):
    """Frames in the order of time, each backwards: the causal flip of a video.

    The last two axes of the grid are the rows and columns of a frame; those before are time.
    """

    def order(self, grid: tuple[int, ...]) -> Int[Tensor, " n"]:
        """Flip the positions of each frame.

        Raises:
            UserError: If the grid has fewer than three axes.
        """
        if len(grid) < 3:
            raise UserError(
                "FlipWithinFrame needs a grid of three axes or more (time, rows, columns), "
                f"got grid={grid}"
            )
        index = torch.arange(math.prod(grid)).reshape(-1, grid[-2] * grid[-1])
        return index.flip(-1).flatten()


class FixedRandom(Permutation):
    """One random order, fixed by its seed.

    Args:
        seed: Seed of the order; give different blocks different seeds.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def order(self, grid: tuple[int, ...]) -> Int[Tensor, " n"]:
        """Return the order that belongs to the seed and the number of positions."""
        generator = stream(self.seed, "permutation")
        return torch.randperm(math.prod(grid), generator=generator)
