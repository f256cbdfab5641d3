"""Positional encoding by true places: rotary, and learned vectors of rows and columns."""

import torch
from torch import nn

from pretzel.flow.conditioner import Rotation
from pretzel.flow.positions.base import Positions
from pretzel.flow.positions.rotary import AxialRotary, check_theta
from pretzel.flow.sizes import check_grid, check_sizes
from pretzel.typing import Float, Int, Tensor


class GridEmbedding(nn.Module):
    """A learned vector for each coordinate of each grid axis, summed over the axes.

    Args:
        grid: Shape of the grid.
        width: Width of the vectors.

    Raises:
        UserError: If there are no positions or no channels.
    """

    def __init__(self, *, grid: tuple[int, ...], width: int) -> None:
        super().__init__()
        check_grid(grid)
        check_sizes(width=width)
        axes = [nn.Embedding(size, width) for size in grid]
        for axis in axes:
            nn.init.normal_(axis.weight, std=0.02)
        self.axes = nn.ModuleList(axes)

    def forward(self, coordinates: Int[Tensor, "*b axes"]) -> Float[Tensor, "*b w"]:
        """Return the summed vectors of coordinates."""
        parts = [axis(coordinates[..., i]) for i, axis in enumerate(self.axes)]
        return torch.stack(parts).sum(0) if len(parts) > 2 else sum(parts[1:], parts[0])


class AxialPositions(Positions):
    """RoPE over the text axis and the true grid coordinates, with learned row and column vectors.

    Args:
        grid: Shape of the grid (given by the parent).
        width: Channels of the network (given by the parent).
        rotary_dim: Channels of a head; 0 for a network without rotary positions (given).
        text_axis: Whether places have a text axis (given by the parent).
        theta: Base of the rotary frequencies.
        embedding: Whether a learned vector for each row and each column is added to the input.

    Raises:
        UserError: If there are no positions, or ``theta`` is not positive and finite.
    """

    def __init__(
        self,
        grid: tuple[int, ...],
        width: int,
        rotary_dim: int,
        text_axis: bool,
        *,
        theta: float = 100.0,
        embedding: bool = True,
    ) -> None:
        super().__init__()
        check_grid(grid)
        check_theta(theta)
        self.embedding = GridEmbedding(grid=grid, width=width) if embedding else None
        axes = len(grid) + text_axis
        self.rotary = (
            AxialRotary(head_dim=rotary_dim, num_axes=axes, theta=theta) if rotary_dim else None
        )

    def embed(self, coordinates: Int[Tensor, "*b axes"]) -> Float[Tensor, "*b w"] | None:
        """Return the sum of the row's and the column's vector."""
        return None if self.embedding is None else self.embedding(coordinates)

    def rotation(self, places: Tensor, dtype: torch.dtype) -> Rotation | None:
        """Rotate by the coordinates."""
        return None if self.rotary is None else self.rotary(places, dtype)
