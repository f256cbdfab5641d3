"""The laws of scan orders."""

import math

import torch

from pretzel.flow.permutations import Permutation
from pretzel.testing.deviation import Deviation, require, unmeasured
from pretzel.testing.law_case import Case

GRIDS: list[tuple[int, ...]] = [(6,), (3, 3), (2, 5), (1, 4), (2, 2, 3)]


def every_position_is_visited_once(case: Case[Permutation]) -> Deviation:
    """The order is not a permutation of 0..N-1 on a grid that it accepts."""
    permutation = case.build()
    accepted = 0
    for grid in GRIDS:
        try:
            order = permutation.order(grid)
        except ValueError:
            continue
        accepted += 1
        all_positions = torch.arange(math.prod(grid))
        require(order.dtype == torch.int64, f"order must be int64, got {order.dtype}")
        require(
            order.shape == all_positions.shape
            and bool((order.sort().values == all_positions).all()),
            f"order of grid {grid} must be a permutation of 0..N-1, got {order.tolist()}",
        )
    require(accepted > 0, f"none of the grids {GRIDS} is accepted")
    return unmeasured("permutation of 0..N-1")


def order_is_fixed(case: Case[Permutation]) -> Deviation:
    """The order differs between calls, equal instances or states of the global generator."""
    first, second = case.build(), case.build(seed=1)
    for grid in GRIDS:
        try:
            order = first.order(grid)
        except ValueError:
            continue
        same = order.equal(first.order(grid)) and order.equal(second.order(grid))
        require(same, f"order of grid {grid} must always be the same")
    return unmeasured("order is fixed")
