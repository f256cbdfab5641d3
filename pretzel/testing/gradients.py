"""Derivatives by autograd and by finite differences, which laws hold parts to."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from pretzel.testing.deviation import Deviation, require, unmeasured, within, worst_of
from pretzel.testing.global_state import seeded
from pretzel.testing.law_case import normal
from pretzel.typing import Float, Tensor

_STEP = 1e-5
FINITE_DIFFERENCES = 1e-5
"""Error of central differences, relative to the derivative or 1."""


def jacobian(
    function: Callable[[Tensor], Tensor], point: Float[Tensor, "n d"]
) -> Float[Tensor, "k p n d"]:
    """Return d f / d x of one sample.

    Every output element is differentiated in a row of its own of one batch, so that one pass
    forward and one backward give all of them (rows must not see each other: a law of its own).

    Args:
        function: Maps a batch [b, n, d] to [b, k, p].
        point: The sample.
    """
    with torch.no_grad():
        shape = function(point[None]).shape[1:]
    count = shape.numel()
    rows = point.expand(count, *point.shape).clone().requires_grad_()
    # Adding 0 * rows keeps an output that depends on nothing in the graph.
    outputs = function(rows).flatten(1) + 0.0 * rows.sum()
    (gradient,) = torch.autograd.grad(outputs.diagonal().sum(), rows)
    return gradient.view(*shape, *point.shape)


def check_gradients(module: nn.Module, loss: Float[Tensor, ""], *, nonzero: bool) -> Deviation:
    """Differentiate a loss that uses the whole module.

    Raises:
        LawBroken: Naming the first trainable parameter whose gradient is missing or not finite, or
            must not be zero and is, altogether or for half of its outputs or inputs.
    """
    named = trainable(module)
    if named:
        require(loss.requires_grad, f"gradient: the loss depends on none of {sorted(named)}")
        gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        for name, gradient in zip(named, gradients, strict=True):
            require(gradient is not None, f"gradient: {name} is unused")
            assert gradient is not None
            require(bool(gradient.isfinite().all()), f"gradient: that of {name} is not finite")
            if nonzero:
                _check_alive(name, gradient)
    return unmeasured("gradient")


def _check_alive(name: str, gradient: Tensor) -> None:
    """Refuse a gradient that is zero for half of the first or of the second axis.

    Zeros along other axes say nothing: the grid of a law is smaller than the reach of a kernel. Nor
    do rows of a table of embeddings: which of them are looked up depends on the tokens.
    """
    require(bool(gradient.any()) or not gradient.numel(), f"gradient: that of {name} is zero")
    is_table = name.endswith(("embedding", "embedding.weight"))
    for axis in range(int(is_table), min(2, gradient.dim())):
        is_dead = ~gradient.transpose(0, axis).reshape(gradient.shape[axis], -1).any(dim=1)
        count, size = int(is_dead.sum()), len(is_dead)
        what = f"gradient: that of {name} is zero for {count} of {size} along axis {axis}"
        require(2 * count < size, what)


def check_finite_differences(
    function: Callable[[], dict[str, Tensor]], points: dict[str, Sequence[Tensor]]
) -> Deviation:
    """Compare gradients with central differences along one random direction of all points.

    Args:
        function: Returns numbers that depend on the points, by name; it is called under one random
            state.
        points: Leaves that require gradients, by what they are called in messages.

    Raises:
        LawBroken: If a derivative is another one than by finite differences.
    """

    def values() -> dict[str, Tensor]:
        with seeded("finite differences"):
            return function()

    outputs = values()
    deviations = [unmeasured("derivatives")]
    moves = {point: _directions(point, leaves) for point, leaves in points.items() if leaves}
    by_autograd = {
        (point, name): _along(output, points[point], directions)
        for point, directions in moves.items()
        for name, output in outputs.items()
    }
    for point, directions in moves.items():
        with torch.no_grad():
            ahead, behind = (_moved(values, points[point], directions, h) for h in (_STEP, -_STEP))
        for name in outputs:
            expected = (ahead[name] - behind[name]) / (2 * _STEP)
            what = f"derivative of {name} by {point} = finite differences"
            actual = by_autograd[point, name]
            deviations.append(within(actual, expected, FINITE_DIFFERENCES, what))
    return worst_of(*deviations)


def _directions(key: str, leaves: Sequence[Tensor]) -> list[Tensor]:
    """Return one random direction over several tensors, of length 1."""
    directions = [normal(*leaf.shape, key=f"{key} {i}") for i, leaf in enumerate(leaves)]
    length = torch.cat([direction.flatten() for direction in directions]).norm()
    return [direction / length for direction in directions]


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trainable parameters of a module by name."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def _along(output: Tensor, leaves: Sequence[Tensor], directions: Sequence[Tensor]) -> Tensor:
    """Return the derivative of a number along a direction, by autograd."""
    total = torch.zeros_like(output)
    if output.requires_grad:
        gradients = torch.autograd.grad(output, leaves, allow_unused=True, retain_graph=True)
        for gradient, direction in zip(gradients, directions, strict=True):
            total = total if gradient is None else total + (gradient * direction).sum()
    return total


def _moved(
    values: Callable[[], dict[str, Tensor]],
    leaves: Sequence[Tensor],
    directions: Sequence[Tensor],
    step: float,
) -> dict[str, Tensor]:
    """Return the numbers at points moved along a direction, which are then moved back."""
    before = [leaf.clone() for leaf in leaves]
    for leaf, direction in zip(leaves, directions, strict=True):
        leaf.add_(direction, alpha=step)
    moved = values()
    for leaf, old in zip(leaves, before, strict=True):
        leaf.copy_(old)
    return moved
