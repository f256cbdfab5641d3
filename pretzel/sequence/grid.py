"""Grid coordinates of the positions of an image."""

import torch

from pretzel.typing import Int, Tensor


def grid_coordinates(grid: tuple[int, ...]) -> Int[Tensor, "n axes"]:
    """Return the coordinates of every grid position, in raster order."""
    return torch.cartesian_prod(*map(torch.arange, grid)).reshape(-1, len(grid))
