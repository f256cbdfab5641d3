"""The further laws of autoregressive blocks: order, causality, caches, fixed-point iteration."""

import copy
import math
from itertools import pairwise
from typing import Any

import torch

from pretzel.flow import AutoregressiveBlock
from pretzel.testing.deviation import Deviation, check, require, unmeasured, within, worst, worst_of
from pretzel.testing.global_state import seeded
from pretzel.testing.gradients import jacobian, trainable
from pretzel.testing.law_case import FP64, PERTURBED_EVAL, Case, holds_under_dropout, tried_in
from pretzel.testing.laws.blocks import Bound, sample, sample_of_scales
from pretzel.testing.laws.transforms import within_condition
from pretzel.typing import Float, Tensor

AnyBlock = AutoregressiveBlock[Any]


def built(case: Case[AnyBlock]) -> tuple[AnyBlock, Float[Tensor, "b n d"], dict[str, Tensor]]:
    """Return the block with positions for it, and the context of their rows as an argument."""
    block = case.build()
    x = sample(block)
    return block, x, Bound(block).context(len(x))


def stepped(
    block: AnyBlock,
    x: Float[Tensor, "b n d"],
    context: dict[str, Tensor],
    **temperature: Float[Tensor, " b"],
) -> Float[Tensor, "b n p"]:
    """Return the parameters of every position, one after the other with a cache."""
    with torch.no_grad():
        cache = block.new_cache(len(x), **context, **temperature)
        previous = [None, *x[:, :-1].unbind(1)]
        return torch.stack([block.step(p, i, cache) for i, p in enumerate(previous)], dim=1)


def chunked(
    block: AnyBlock, x: Float[Tensor, "b n d"], context: dict[str, Tensor]
) -> Float[Tensor, "b n p"]:
    """Return the parameters of every position, several at a time behind the cache."""
    n = x.shape[1]
    edges = sorted({0, 1, (n + 1) // 2, n})
    with torch.no_grad():
        cache = block.new_cache(len(x), **context)
        parts = []
        for start, stop in pairwise(edges):
            # A provisional evaluation of an estimate that is wrong must leave no trace.
            block.evaluate(torch.cat([x[:, :start], x[:, start:] + 1], dim=1), start, stop, cache)
            block.rewind(start, stop, cache)
            parts.append(block.evaluate(x, start, stop, cache))
    return torch.cat(parts, dim=1)


def jacobian_is_triangular(case: Case[AnyBlock]) -> Deviation:
    """In scan order dz/dx is not lower triangular with a positive diagonal."""
    block = case.build()
    bound = Bound(block, same=True)
    x = sample(block, rows=1)[0]
    full = jacobian(lambda rows: bound(rows).z, x)
    ordered = full[block.order][:, :, block.order]  # z position, z channel, x position, x channel
    n, d = x.shape
    later = torch.ones(n, n, dtype=torch.bool).triu(1)[:, None, :, None]
    future = check(worst(ordered.abs() * later, FP64, "dz_n/dx_m for m > n"))
    diagonal_blocks = torch.stack([ordered[i, :, i] for i in range(n)])
    others = diagonal_blocks.abs() * ~torch.eye(d, dtype=torch.bool)
    mixed = check(worst(others, FP64, "dz_n/dx_n between channels"))
    diagonal = diagonal_blocks.diagonal(dim1=1, dim2=2)
    require(bool((diagonal > 0).all()), f"dz_n/dx_n must be positive, got {diagonal.min():.3g}")
    return worst_of(future, mixed)


def conditioner_is_strictly_causal(case: Case[AnyBlock]) -> Deviation:
    """The parameters of a position depend on the position itself or on later ones."""
    block = case.build()
    bound = Bound(block, same=True)
    x = sample(block, rows=1)[0]
    full = jacobian(lambda rows: block.condition(rows, **bound.context(len(rows))), x)
    n = len(x)
    not_before = torch.ones(n, n, dtype=torch.bool).triu()[:, None, :, None]
    return check(worst(full.abs() * not_before, FP64, "d theta_n / d x_m for m >= n"))


@holds_under_dropout
def later_positions_change_nothing(case: Case[AnyBlock]) -> Deviation:
    """The parameters of a position change with itself or a later one, where gradients show none."""
    block = case.build()
    bound = Bound(block, same=True)
    x = sample_of_scales(block)[0]
    n = len(x)
    rows = x.expand(n, -1, -1).clone()
    is_changed = torch.ones(
        n, n, dtype=torch.bool
    ).triu()  # row m differs at positions m, m + 1, ..
    rows[is_changed] = 10 * sample(block, rows=n, key="other")[is_changed]
    results = []
    for inputs in (x.expand(n, -1, -1), rows):
        with torch.no_grad(), seeded("later positions"):
            results.append(block.condition(inputs, **bound.context(n)))
    error = (results[1] - results[0]).abs() * is_changed.T[..., None]
    return check(worst(error.nan_to_num(nan=math.inf), FP64, "theta_n after a change at m >= n"))


def cached_steps_equal_condition(case: Case[AnyBlock]) -> Deviation:
    """One position after the other with the cache gives other parameters than all at once."""
    block = case.build()
    x = sample_of_scales(block)
    context = Bound(block).context(len(x))
    with torch.no_grad():
        expected = block.condition(x, **context)
    return within(stepped(block, x, context), expected, FP64, "cached parameters = uncached")


def evaluations_behind_the_cache_equal_condition(case: Case[AnyBlock]) -> Deviation:
    """Several positions at a time behind the cache give other parameters than all at once."""
    block, x, context = built(case)
    with torch.no_grad():
        expected = block.condition(x, **context)
    return within(chunked(block, x, context), expected, FP64, "parameters behind the cache")


@tried_in(PERTURBED_EVAL)
def extreme_parameters_are_inverted(case: Case[AnyBlock]) -> Deviation:
    """With raw parameters of size 8 the cache or the transform of the inverse is another one."""
    block = copy.deepcopy(case.build())
    x = sample_of_scales(block)
    context = Bound(block).context(len(x))
    with torch.no_grad():
        for _ in range(8):
            params = block.condition(x, **context)
            if not params.numel() or params.abs().max() >= 8:
                break
            for parameter in trainable(block).values():
                parameter.mul_(1.5)
        steps = stepped(block, x, context)
        same = within(steps, params, FP64, "cached parameters = uncached")
        z = block(x, **context).z[:, block.order]
        ordered = x[:, block.order]
        params = block.condition(ordered, **context)
        # Each position given those before it: errors of the inverse would grow from one to the next
        back = block.transform.inverse(z, block.complete(stepped(block, ordered, context)))
        _, logdet = block.transform.forward(ordered, block.complete(params))
    return worst_of(same, within_condition(back, ordered, z, logdet))


def caches_share_nothing(case: Case[AnyBlock]) -> Deviation:
    """Two caches that are used in turn disturb each other: memory is kept outside of them."""
    block = case.build()
    inputs = [sample(block), sample(block, key="other")]
    contexts = [Bound(block).context(3, first) for first in (0, 1)]
    n = inputs[0].shape[1]

    def first_of(count: int) -> Tensor:
        """Return the first input's parameters, stepped in turn with ``count - 1`` other inputs."""
        pairs = list(zip(inputs[:count], contexts[:count], strict=True))
        caches = [block.new_cache(3, **context) for _, context in pairs]
        steps = [
            [
                block.step(x[:, index - 1] if index else None, index, cache)
                for (x, _), cache in zip(pairs, caches, strict=True)
            ]
            for index in range(n)
        ]
        caches = [block.new_cache(3, **context) for _, context in pairs]
        for (x, _), cache in zip(pairs, caches, strict=True):
            block.evaluate(x, 0, n, cache)
        for cache in caches:
            block.rewind(0, n, cache)
        again = [
            block.evaluate(x, 0, n, cache) for (x, _), cache in zip(pairs, caches, strict=True)
        ]
        return torch.cat([torch.stack([first for first, *_ in steps], dim=1), again[0]], dim=1)

    with torch.no_grad():
        return within(first_of(2), first_of(1), FP64, "parameters beside another cache")


def fixed_point_iteration_inverts(case: Case[AnyBlock]) -> Deviation:
    """N rounds of x <- T^-1(z; theta(x)), Jacobi decoding, do not reach the inverse."""
    block = case.build()
    z = sample(block, key="z")
    bound = Bound(block)
    context = bound.context(len(z))
    with torch.no_grad():
        ordered = z[:, block.order]
        x = torch.zeros_like(ordered)
        for _ in range(ordered.shape[1]):
            params = block.complete(block.condition(x, **context))
            x = block.transform.inverse(ordered, params)
        return within(x[:, block.rank], bound.inverse(z), FP64, "Jacobi = sequential")


@holds_under_dropout
def parameters_have_the_right_shape(case: Case[AnyBlock]) -> Deviation:
    """The conditioner does not give one set of parameters for each position."""
    block, x, context = built(case)
    with torch.no_grad():
        shape = tuple(block.condition(x, **context).shape)
    expected = (*x.shape[:2], block.num_params)
    require(shape == expected, f"condition(x) has shape {shape} instead of {expected}")
    return unmeasured("shape of the parameters")
