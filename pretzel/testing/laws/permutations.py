"""The laws of scan orders."""

import math
from contextlib import suppress

import torch

from pretzel.flow.permutations import Permutation
from pretzel.rng import global_states
from pretzel.testing.deviation import Deviation, require, unmeasured
from pretzel.testing.global_state import has_drawn, seeded
from pretzel.testing.law_case import Case
from pretzel.typing import Tensor

GRIDS: list[tuple[int, ...]] = [(6,), (7,), (3, 3), (2, 5), (5, 7), (1, 4), (2, 2, 3), (3, 1, 5)]


def accepted_orders(permutation: Permutation) -> dict[tuple[int, ...], Tensor]:
    """Return the order of every grid that a permutation accepts."""
    orders = {}
    for grid in GRIDS:
        with suppress(ValueError):
            orders[grid] = permutation.order(grid)
    return orders


def every_position_is_visited_once(case: Case[Permutation]) -> Deviation:
    """The order is not a permutation of 0..N-1 on a grid that it accepts."""
    orders = accepted_orders(case.build())
    for grid, order in orders.items():
        all_positions = torch.arange(math.prod(grid))
        require(order.dtype == torch.int64, f"order must be int64, got {order.dtype}")
        what = f"order of grid {grid} must be a permutation of 0..N-1, got {order.tolist()}"
        require(order.sort().values.equal(all_positions), what)
    require(bool(orders), f"none of the grids {GRIDS} is accepted")
    return unmeasured("permutation of 0..N-1")


def order_is_fixed(case: Case[Permutation]) -> Deviation:
    """The order differs between calls, equal instances or states of the global generator."""
    first, second = case.build(), case.build(seed=1)
    with seeded("order"):
        before = global_states()
        orders = accepted_orders(first)
        require(not has_drawn(before, global_states()), "order draws from a global random state")
    for grid, order in orders.items():
        expected = order.clone()
        order.zero_()  # which is the caller's to do
        same = all(expected.equal(again.order(grid)) for again in (first, first, second))
        require(same, f"order of grid {grid} must always be the same")
    return unmeasured("order is fixed")
