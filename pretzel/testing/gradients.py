"""Derivatives by autograd, with which laws compare those that parts report."""

from collections.abc import Callable

import torch
from torch import nn

from pretzel.testing.deviation import Deviation, require, unmeasured
from pretzel.typing import Float, Tensor


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
            is zero and must not be.
    """
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if named:
        require(loss.requires_grad, f"gradient: the loss depends on none of {sorted(named)}")
        gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        for name, gradient in zip(named, gradients, strict=True):
            require(gradient is not None, f"gradient: {name} is unused")
            assert gradient is not None
            require(bool(gradient.isfinite().all()), f"gradient: that of {name} is not finite")
            require(not nonzero or bool(gradient.any()), f"gradient: that of {name} is zero")
    return unmeasured("gradient")
