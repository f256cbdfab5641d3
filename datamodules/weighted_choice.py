"""Draws one of several things by their weights."""

from collections.abc import Sequence

import torch


def weighted_choice(weights: Sequence[float], generator: torch.Generator) -> int:
    """Return an index, drawn with the probability of its weight over the sum of all.

    Args:
        weights: Numbers from 0 on, at least one of them positive.
        generator: Random numbers, of which one is taken.
    """
    cumulative = torch.tensor(weights, dtype=torch.float64).cumsum(0)
    point = torch.rand((), generator=generator, dtype=torch.float64) * cumulative[-1]
    # At the end of the last interval by rounding, the point counts as inside of it.
    return min(int((cumulative <= point).sum()), len(weights) - 1)
