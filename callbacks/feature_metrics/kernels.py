"""Squared maximum mean discrepancy between two sets of features, block by block."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from callbacks.feature_metrics.feature_rows import BLOCK, blocks

Kernel = Callable[[Tensor, Tensor], Tensor]
"""Gives ``[m, n]`` for features ``[m, f]`` and ``[n, f]``."""


def squared_mmd(
    x: Float[Tensor, "m f"],
    y: Float[Tensor, "n f"],
    kernel: Kernel,
    *,
    unbiased: bool,
    device: torch.device,
) -> float:
    """Return the squared MMD: ``mean k(x, x') + mean k(y, y') - 2 mean k(x, y)``.

    Unbiased, means within a set leave out pairs of a vector with itself (Gretton et al. 2012,
    equation 3); else they are over all pairs (equation 5, the V-statistic).
    """

    def within(rows: Float[Tensor, "m f"]) -> Tensor:
        total = torch.zeros((), dtype=torch.float64, device=device)
        for number, block in enumerate(blocks(rows, device)):
            for earlier in blocks(rows[: number * BLOCK], device):
                total += 2 * kernel(block, earlier).sum()  # and those the other way round
            pairs = kernel(block, block)
            total += pairs.sum() - (pairs.trace() if unbiased else 0)
        return total / (len(rows) * (len(rows) - unbiased))

    between = torch.zeros((), dtype=torch.float64, device=device)
    for block in blocks(x, device):
        for other in blocks(y, device):
            between += kernel(block, other).sum()
    return float(within(x) + within(y) - 2 * between / (len(x) * len(y)))
