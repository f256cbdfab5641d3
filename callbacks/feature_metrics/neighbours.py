"""Balls around features, each as large as the distance to the k-th nearest other one."""

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from callbacks.feature_metrics.feature_rows import BLOCK, blocks


def ball_radii(
    rows: Float[Tensor, "n f"], neighbours: int, device: torch.device
) -> Float64[Tensor, " n"]:
    """Return the distance of each vector to the nearest other ones' k-th."""
    radii = []
    for block in blocks(rows, device):
        nearest = block.new_zeros(len(block), 0)
        for other in blocks(rows, device):
            distances = torch.cat([nearest, torch.cdist(block, other)], dim=1)
            keep = min(neighbours + 1, distances.shape[1])  # with the vector itself
            nearest = distances.topk(keep, largest=False).values
        radii.append(nearest.amax(dim=1))
    return torch.cat(radii)


def points_in_balls(
    points: Float[Tensor, "m f"],
    centres: Float[Tensor, "n f"],
    radii: Float64[Tensor, " n"],
    device: torch.device,
) -> tuple[Int[Tensor, " m"], Bool[Tensor, " n"]]:
    """Return the number of balls that each point lies in, and whether each ball has a point."""
    counts = []
    has_point = torch.zeros(len(centres), dtype=torch.bool, device=device)
    for block in blocks(points, device):
        inside = [
            torch.cdist(block, centre) <= radii[start : start + len(centre)]
            for start, centre in zip(
                range(0, len(centres), BLOCK), blocks(centres, device), strict=True
            )
        ]
        counts.append(torch.stack([one.sum(dim=1) for one in inside]).sum(dim=0))
        has_point |= torch.cat([one.any(dim=0) for one in inside])
    return torch.cat(counts), has_point
