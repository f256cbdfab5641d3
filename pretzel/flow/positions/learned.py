"""TarFlow's positional encoding: one learned vector for each position."""

import math

import torch
from torch import nn

from pretzel.errors import UserError
from pretzel.flow.conditioner import Rotation
from pretzel.flow.positions.base import Positions
from pretzel.flow.sizes import check_grid, check_sizes
from pretzel.typing import Float, Int, Tensor


class LearnedPositions(Positions):
    """One learned vector for each place on the grid, no rotary positions (TarFlow).

    Args:
        grid: Shape of the grid (given by the parent).
        width: Channels of the network (given by the parent).
        rotary_dim: Not used (given by the parent).
        text_axis: Whether places have a text axis (given by the parent).

    Raises:
        UserError: If there are no positions, or text shares the network: it would have none.
    """

    def __init__(self, grid: tuple[int, ...], width: int, rotary_dim: int, text_axis: bool) -> None:
        super().__init__()
        check_grid(grid)
        check_sizes(width=width)
        if text_axis:
            raise UserError(
                "positions: LearnedPositions have no places of text; choose AxialPositions where "
                "text stands before the image"
            )
        self.vectors = nn.Parameter(0.01 * torch.randn(math.prod(grid), width))
        strides = [math.prod(grid[axis + 1 :]) for axis in range(len(grid))]
        self.register_buffer("strides", torch.tensor(strides), persistent=False)
        self.strides: Tensor

    def embed(self, coordinates: Int[Tensor, "*b axes"]) -> Float[Tensor, "*b w"] | None:
        """Return the vector of each place."""
        return self.vectors[(coordinates * self.strides).sum(dim=-1)]

    def rotation(self, places: Tensor, dtype: torch.dtype) -> Rotation | None:
        """Return None."""
        return None
