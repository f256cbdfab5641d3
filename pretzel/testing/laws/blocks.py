"""The laws of every flow block.

Each is a function of a case; its first line says what a block that breaks it does wrong.
"""

import math

import torch

from pretzel.flow.block import FlowBlock, Flowed
from pretzel.rng import global_states
from pretzel.testing.deviation import (
    Deviation,
    LawBroken,
    check,
    require,
    unmeasured,
    within,
    worst_of,
)
from pretzel.testing.global_state import changed_states, seeded
from pretzel.testing.gradients import check_gradients, jacobian
from pretzel.testing.law_case import BF16, FP32, FP64, Case, holds_under_dropout, normal
from pretzel.typing import Float, Tensor


def sample(block: FlowBlock, rows: int = 3, key: str = "x") -> Float[Tensor, "b n d"]:
    """Return standard normal positions for a block, float64."""
    return normal(rows, math.prod(block.grid), block.channels, key=key)


class Bound:
    """A block with its context filled in, where it reads one: in all rows the ``same``, or not."""

    def __init__(self, block: FlowBlock, *, same: bool = False) -> None:
        self.block = block
        self.contexts = block.example_context(5)
        self.same = same

    def context(self, num_rows: int, first: int = 0) -> dict[str, Tensor]:
        """Return the context of rows first, first + 1, ... as an argument; nothing for none."""
        if self.contexts is None:
            return {}
        rows = torch.arange(first, first + num_rows) % len(self.contexts)
        return {"context": self.contexts[rows * (not self.same)]}

    def __call__(self, x: Float[Tensor, "b n d"], first: int = 0) -> Flowed:
        """Map data towards noise."""
        flowed: Flowed = self.block(x, **self.context(len(x), first))
        return flowed

    def inverse(self, z: Float[Tensor, "b n d"], first: int = 0) -> Float[Tensor, "b n d"]:
        """Map noise towards data."""
        return self.block.inverse(z, **self.context(len(z), first))


def draws_in_training(block: FlowBlock) -> bool:
    """Tell whether a block draws from a global random state in training mode, as dropout does."""
    block.double().train()
    with seeded("draws"), torch.no_grad():
        before = global_states()
        try:
            Bound(block)(sample(block))
        except Exception:  # which a law will find, and name
            return False
        return bool(changed_states(before, global_states()))


def inverse_undoes_forward(case: Case[FlowBlock]) -> Deviation:
    """The inverse does not undo the forward map, or the other way round."""
    block = Bound(case.build())
    x, z = sample(block.block), sample(block.block, key="z")
    with torch.no_grad():
        back = within(block.inverse(block(x).z), x, FP64, "inverse(forward(x)) = x")
        forth = within(block(block.inverse(z)).z, z, FP64, "forward(inverse(z)) = z")
    return worst_of(back, forth)


def logdet_is_that_of_the_jacobian(case: Case[FlowBlock]) -> Deviation:
    """The reported log-determinant is not log|det| of the block's autograd Jacobian."""
    block = Bound(case.build(), same=True)
    x = sample(block.block, rows=1)
    dims = x.numel()
    matrix = jacobian(lambda rows: block(rows).z, x[0]).reshape(dims, dims)
    true = torch.linalg.slogdet(matrix).logabsdet[None]
    with torch.no_grad():
        return within(block(x).logdet, true, FP64, "logdet = log|det dz/dx|")


def rows_are_independent(case: Case[FlowBlock]) -> Deviation:
    """A sample's result depends on the other samples of its batch."""
    block = Bound(case.build())
    x = sample(block.block, rows=2)
    with torch.no_grad():
        together = block(x)
        alone = [block(row[None], i) for i, row in enumerate(x)]
    # An inverse that mixes rows does not undo a map that does not: a law of its own.
    return worst_of(
        within(torch.cat([f.z for f in alone]), together.z, FP64, "z of single rows"),
        within(torch.cat([f.logdet for f in alone]), together.logdet, FP64, "logdet of rows"),
    )


@holds_under_dropout
def inputs_are_not_modified(case: Case[FlowBlock]) -> Deviation:
    """The block writes into the tensors it is given."""
    block = Bound(case.build())
    x = sample(block.block)
    for name, function in (("forward", block), ("inverse", block.inverse)):
        argument = x.clone()
        with torch.no_grad():
            function(argument)
        deviation = within(argument, x, 0.0, f"input after {name}")
    return deviation


@holds_under_dropout
def every_parameter_is_trained(case: Case[FlowBlock]) -> Deviation:
    """A trainable parameter gets no gradient, or one that is not finite."""
    block = case.build()
    x = sample(block)
    flowed = Bound(block)(x)
    loss = (flowed.z * sample(block, key="weights")).sum() + flowed.logdet.sum()
    return check_gradients(block, loss, nonzero=case.perturbed)


def state_dict_holds_everything(case: Case[FlowBlock]) -> Deviation:
    """A block with the same state dict computes something else: part of its state is not saved."""
    block, other = case.build(), case.build(seed=1)
    other.load_state_dict(block.state_dict())
    x = sample(block)
    with torch.no_grad():
        first, second = Bound(block)(x), Bound(other)(x)
    return worst_of(
        within(second.z, first.z, 0.0, "z after loading"),
        within(second.logdet, first.logdet, 0.0, "logdet after loading"),
    )


@holds_under_dropout
def wrong_shapes_are_refused(case: Case[FlowBlock]) -> Deviation:
    """An input with a position or a channel too many is not refused by a ValueError."""
    block = case.build()
    x = sample(block)
    positions, channels = torch.cat([x, x[:, :1]], 1), torch.cat([x, x[..., :1]], 2)
    for name, wrong in (("positions", positions), ("channels", channels), ("axes", x[None])):
        try:
            Bound(block)(wrong)
        except (ValueError, TypeError):  # a checker of shapes, where one runs, raises the latter
            continue
        raise LawBroken(f"x of shape {tuple(wrong.shape)}, one too many {name}, is not refused")
    return unmeasured("wrong shapes refused")


@holds_under_dropout
def what_is_not_finite_is_refused(case: Case[FlowBlock]) -> Deviation:
    """A NaN inside the input is not refused by a ValueError that names the block."""
    block = case.build()
    x = sample(block)
    x[0, -1, -1] = torch.nan
    bound = Bound(block)
    for name, function in (("forward", bound), ("inverse", bound.inverse)):
        try:
            with torch.no_grad():
                function(x)
        except ValueError as error:
            named = type(block).__name__ in str(error) and "nan" in str(error)
            require(named, f"{name} of NaN raises without block and value: {error}")
            continue
        raise LawBroken(f"{name} of NaN is not refused")
    return unmeasured("NaN refused")


def float32_is_close(case: Case[FlowBlock]) -> Deviation:
    """In float32 the inverse or the log-determinant is off by more than 1e-4."""
    block, exact = Bound(case.build(dtype=torch.float32)), Bound(case.build())
    x = sample(block.block)
    with torch.no_grad():
        flowed = block(x.float())
        require(flowed.z.dtype == torch.float32, f"float32 gives {flowed.z.dtype}")
        expected = exact(x)
        return worst_of(
            within(block.inverse(flowed.z).double(), x, FP32, "inverse in float32"),
            within(flowed.z.double(), expected.z, FP32, "z in float32"),
            within(flowed.logdet.double(), expected.logdet, FP32, "logdet in float32"),
        )


def bfloat16_is_stated(case: Case[FlowBlock]) -> Deviation:
    """With bfloat16 weights z is off by more than a tenth of its norm."""
    block, exact = Bound(case.build(dtype=torch.bfloat16)), Bound(case.build())
    x = sample(block.block).bfloat16()
    with torch.no_grad():
        z, expected = block(x).z.double(), exact(x.double()).z
    error = float((z - expected).norm() / expected.norm())
    what = "relative error of z in bfloat16"
    return check(Deviation(what=what, error=error, tolerance=BF16))
