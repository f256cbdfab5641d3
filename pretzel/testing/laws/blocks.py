"""The laws of every flow block.

Each is a function of a case; its first line says what a block that breaks it does wrong.
"""

import math

import torch

from pretzel.flow.block import FlowBlock, Flowed
from pretzel.testing.deviation import (
    Deviation,
    LawBroken,
    check,
    require,
    unmeasured,
    within,
    worst_of,
)
from pretzel.testing.gradients import jacobian
from pretzel.testing.law_case import (
    BF16,
    FP32,
    FP64,
    PERTURBED,
    PERTURBED_EVAL,
    Case,
    holds_under_dropout,
    normal,
    tried_in,
)
from pretzel.typing import Float, Tensor

SCALES = (1.0, 0.1, 3.0, 10.0, 30.0, 1.0, 1.0)
"""Scales of the rows of a batch: data are not always of unit variance."""


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


def sample_of_scales(block: FlowBlock, key: str = "x") -> Float[Tensor, "b n d"]:
    """Return seven rows of normal positions of different scales, up to what the block maps.

    A block whose sigma is exp(a) may refuse data that are far out, by a ``ValueError``.
    """
    rows = sample(block, len(SCALES), key)
    for largest in (30.0, 10.0, 3.0, 1.0):
        x = rows * torch.tensor(SCALES).double().clamp(max=largest)[:, None, None]
        try:
            with torch.no_grad():
                Bound(block)(x)
        except ValueError as error:
            if "finite" not in str(error):
                raise
            continue
        break
    return x


def exercise(block: FlowBlock) -> None:
    """Run a block once."""
    Bound(block)(sample(block))


def inverse_undoes_forward(case: Case[FlowBlock]) -> Deviation:
    """The inverse does not undo the forward map, or the other way round."""
    block = Bound(case.build())
    x, z = sample_of_scales(block.block), sample(block.block, key="z")
    with torch.no_grad():
        back = within(block.inverse(block(x).z), x, FP64, "inverse(forward(x)) = x")
        forth = within(block(block.inverse(z)).z, z, FP64, "forward(inverse(z)) = z")
    return worst_of(back, forth)


def logdet_is_that_of_the_jacobian(case: Case[FlowBlock]) -> Deviation:
    """The reported log-determinant is not log|det| of the block's autograd Jacobian."""
    block = Bound(case.build(), same=True)
    deviations = []
    for x in sample_of_scales(block.block)[[0, 4]]:
        matrix = jacobian(lambda rows: block(rows).z, x).reshape(x.numel(), x.numel())
        true = torch.linalg.slogdet(matrix).logabsdet[None]
        with torch.no_grad():
            logdet = block(x[None]).logdet
        deviations.append(within(logdet, true, FP64, "logdet = log|det dz/dx|"))
    return worst_of(*deviations)


def rows_are_independent(case: Case[FlowBlock]) -> Deviation:
    """A sample's result depends on the other samples of its batch."""
    block = Bound(case.build())
    x = sample_of_scales(block.block)
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
    for name, function in (("forward", block.block), ("inverse", block.block.inverse)):
        argument, context = x.clone(), block.context(len(x))
        with torch.no_grad():
            function(argument, **context)
        deviation = within(argument, x, 0.0, f"input after {name}")
        for before, after in zip(block.context(len(x)).values(), context.values(), strict=True):
            within(after.double(), before.double(), 0.0, f"context after {name}")
    return deviation


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


@tried_in(PERTURBED, PERTURBED_EVAL)
@holds_under_dropout
def logdet_is_summed_in_float32(case: Case[FlowBlock]) -> Deviation:
    """The log-determinant is summed in half precision, with bfloat16 weights or under autocast."""
    for dtype in (torch.bfloat16, torch.float32):
        block = Bound(case.build(dtype=dtype))
        x = sample(block.block, len(SCALES)).to(dtype)
        is_autocast = dtype == torch.float32
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=is_autocast):
            logdet = block(x).logdet
        where = "under autocast" if is_autocast else "with bfloat16 weights"
        require(logdet.dtype in (torch.float32, torch.float64), f"{where} it is {logdet.dtype}")
        # A sum in float32 has more digits than bfloat16 holds, in one row or another.
        is_rounded = bool((logdet == logdet.bfloat16()).all()) and bool((logdet != logdet[0]).any())
        require(not is_rounded, f"{where} no row's log-determinant has the digits of a float32")
    return unmeasured("log-determinants in float32")
