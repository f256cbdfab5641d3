"""Grid coordinates of the positions of an image."""

import torch

from pretzel.typing import Int, Tensor


def grid_coordinates(grid: tuple[int, ...]) -> Int[Tensor, "n axes"]:
    """Return the coordinates of every grid position, in raster order."""
    axes = torch.meshgrid(*(torch.arange(size) for size in grid), indexing="ij")
    return torch.stack([axis.flatten() for axis in axes], dim=-1)
