"""The further laws of autoregressive blocks: order, causality, caches, fixed-point iteration."""

from typing import Any

import torch

from pretzel.flow.block import AutoregressiveBlock
from pretzel.testing.blocks import sample
from pretzel.testing.case import FP64, Case
from pretzel.testing.deviation import Deviation, check, require, within, worst, worst_of
from pretzel.testing.gradients import jacobian

AnyBlock = AutoregressiveBlock[Any]


def jacobian_is_triangular(case: Case[AnyBlock]) -> Deviation:
    """In scan order dz/dx is not lower triangular with a positive diagonal."""
    block = case.build()
    x = sample(block, rows=1)[0]
    full = jacobian(lambda rows: block(rows).z, x)
    ordered = full[block.order][:, :, block.order]  # z position, z channel, x position, x channel
    n, d = x.shape
    later = torch.ones(n, n, dtype=torch.bool).triu(1)[:, None, :, None]
    future = check(worst(ordered.abs() * later, FP64, "dz_n/dx_m for m > n"))
    own = torch.stack([ordered[i, :, i] for i in range(n)])
    mixed = check(
        worst(own.abs() * ~torch.eye(d, dtype=torch.bool), FP64, "dz_n/dx_n between channels")
    )
    diagonal = own.diagonal(dim1=1, dim2=2)
    require(bool((diagonal > 0).all()), f"dz_n/dx_n must be positive, got {diagonal.min():.3g}")
    return worst_of([future, mixed])


def conditioner_is_strictly_causal(case: Case[AnyBlock]) -> Deviation:
    """The parameters of a position depend on the position itself or on later ones."""
    block = case.build()
    x = sample(block, rows=1)[0]
    full = jacobian(block.condition, x)
    n = len(x)
    not_before = torch.ones(n, n, dtype=torch.bool).triu()[:, None, :, None]
    return check(worst(full.abs() * not_before, FP64, "d theta_n / d x_m for m >= n"))


def cached_steps_equal_condition(case: Case[AnyBlock]) -> Deviation:
    """One position after the other with the cache gives other parameters than all at once."""
    block = case.build()
    x = sample(block)
    cache = block.new_cache(len(x))
    with torch.no_grad():
        previous = [None, *x[:, :-1].unbind(1)]
        steps = [block.step(p, index, cache) for index, p in enumerate(previous)]
        return within(
            torch.stack(steps, dim=1), block.condition(x), FP64, "cached parameters = uncached"
        )


def fixed_point_iteration_inverts(case: Case[AnyBlock]) -> Deviation:
    """N rounds of x <- T^-1(z; theta(x)), Jacobi decoding, do not reach the inverse."""
    block = case.build()
    z = sample(block, key="z")
    with torch.no_grad():
        ordered = z[:, block.order]
        x = torch.zeros_like(ordered)
        for _ in range(ordered.shape[1]):
            x = block.transform.inverse(ordered, block.condition(x))
        return within(x[:, block.rank], block.inverse(z), FP64, "Jacobi = sequential")


def parameters_have_the_right_shape(case: Case[AnyBlock]) -> Deviation:
    """The conditioner does not give one set of parameters for each position."""
    block = case.build()
    x = sample(block)
    with torch.no_grad():
        shape = tuple(block.condition(x).shape)
    expected = (*x.shape[:2], block.num_params)
    require(shape == expected, f"condition(x) has shape {shape} instead of {expected}")
    return Deviation(what="shape of the parameters", error=0.0, tolerance=0.0)
