"""Where a position stands: a text axis and the true coordinates of the latent grid."""

import torch
from torch import nn

from pretzel.errors import UserError
from pretzel.typing import Float, Int, Tensor


def grid_coordinates(grid: tuple[int, ...]) -> Int[Tensor, "n axes"]:
    """Return the coordinates of every grid position, in raster order."""
    axes = torch.meshgrid(*(torch.arange(size) for size in grid), indexing="ij")
    return torch.stack([axis.flatten() for axis in axes], dim=-1)


class AxialRotary(nn.Module):
    """Rotary position embedding over several axes (RoPE, arXiv 2104.09864, n-D).

    The channel pairs of a head are dealt out to the axes in equal shares; what is left over goes
    to the first axes. Pair (j, j + e/2) of a head of width e rotates by position times frequency.

    Args:
        head_dim: Width e of a head; even, and at least two channels for each axis.
        num_axes: Axes of a position.
        theta: Base of the geometric frequencies; small grids want a small one.

    Raises:
        UserError: If the head cannot be dealt out.
    """

    def __init__(self, *, head_dim: int, num_axes: int, theta: float = 100.0) -> None:
        super().__init__()
        if head_dim % 2 or head_dim // 2 < num_axes:
            raise UserError(
                f"head_dim must be even and at least {2 * num_axes} for {num_axes} position axes, "
                f"got {head_dim}"
            )
        pairs = head_dim // 2
        share = [pairs // num_axes + (axis < pairs % num_axes) for axis in range(num_axes)]
        frequencies = torch.zeros(num_axes, pairs)
        start = 0
        for axis, count in enumerate(share):
            exponents = torch.arange(count) / count
            frequencies[axis, start : start + count] = theta**-exponents
            start += count
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.frequencies: Tensor

    def forward(
        self, positions: Int[Tensor, "*b l a"], dtype: torch.dtype
    ) -> tuple[Float[Tensor, "*b 1 l e"], Float[Tensor, "*b 1 l e"]]:
        """Return cosines and signed sines of positions, ready for :func:`rotate`."""
        angles = positions.to(self.frequencies.dtype) @ self.frequencies
        cosine, sine = angles.cos(), angles.sin()
        cosine = torch.cat([cosine, cosine], dim=-1).to(dtype)
        sine = torch.cat([-sine, sine], dim=-1).to(dtype)
        return cosine.unsqueeze(-3), sine.unsqueeze(-3)


def rotate(
    x: Float[Tensor, "b heads l e"],
    cosine: Float[Tensor, "*b 1 l e"],
    sine: Float[Tensor, "*b 1 l e"],
) -> Float[Tensor, "b heads l e"]:
    """Rotate the channel pairs (j, j + e/2) of each head."""
    return torch.addcmul(x * cosine, x.roll(x.shape[-1] // 2, dims=-1), sine)


class GridEmbedding(nn.Module):
    """A learned vector for each coordinate of each grid axis, summed over the axes.

    Args:
        grid: Shape of the grid.
        width: Width of the vectors.
    """

    def __init__(self, *, grid: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.axes = nn.ModuleList([nn.Embedding(size, width) for size in grid])
        for axis in self.axes:
            assert isinstance(axis, nn.Embedding)
            nn.init.normal_(axis.weight, std=0.02)

    def forward(self, coordinates: Int[Tensor, "*b axes"]) -> Float[Tensor, "*b w"]:
        """Return the summed vectors of coordinates."""
        parts = [axis(coordinates[..., i]) for i, axis in enumerate(self.axes)]
        return torch.stack(parts).sum(0) if len(parts) > 2 else sum(parts[1:], parts[0])
