"""The laws of a flow block's gradients: what training and score denoising differentiate."""

import copy
from collections.abc import Sequence

import torch

from pretzel.flow.block import FlowBlock
from pretzel.testing.deviation import Deviation, LawBroken, require, unmeasured, worst_of
from pretzel.testing.global_state import seeded
from pretzel.testing.gradients import check_finite_differences, check_gradients, trainable
from pretzel.testing.law_case import (
    INITIAL,
    PERTURBED,
    PERTURBED_EVAL,
    Case,
    holds_under_dropout,
    tried_in,
)
from pretzel.testing.laws.blocks import SCALES, Bound, sample, sample_of_scales
from pretzel.typing import Tensor


@tried_in(PERTURBED, PERTURBED_EVAL)
@holds_under_dropout
def gradients_are_those_of_finite_differences(case: Case[FlowBlock]) -> Deviation:
    """A gradient of the likelihood or of z is not that of its values: a term is detached."""
    block = case.build()
    bound = Bound(block)
    weights = sample(block, len(SCALES), key="weights")
    deviations = []
    for x in (sample(block, len(SCALES)), sample_of_scales(block)):

        def values(x: Tensor = x) -> dict[str, Tensor]:
            flowed = bound(x)
            likelihood = (flowed.logdet - 0.5 * flowed.z.square().sum(dim=(1, 2))).mean()
            return {"the likelihood": likelihood, "z": (weights * flowed.z).sum()}

        points: dict[str, Sequence[Tensor]] = {
            "x": [x.requires_grad_()],
            "the parameters": list(trainable(block).values()),
        }
        deviations.append(check_finite_differences(values, points))
    return worst_of(*deviations)


@holds_under_dropout
def every_parameter_is_trained(case: Case[FlowBlock]) -> Deviation:
    """A trainable parameter gets no gradient in half of its elements, or one that is not finite."""
    block = case.build()
    x = sample_of_scales(block)
    flowed = Bound(block)(x)
    loss = (flowed.z * sample(block, len(x), key="weights")).sum() + flowed.logdet.sum()
    return check_gradients(block, loss, nonzero=case.perturbed)


@tried_in(INITIAL)
@holds_under_dropout
def every_parameter_starts_to_move(case: Case[FlowBlock]) -> Deviation:
    """Some steps of training from the initial weights leave a parameter where it is.

    Two factors that both start at zero get no gradient, ever; one of them is right.
    """
    block = copy.deepcopy(case.build())
    bound, x = Bound(block), sample(block)
    named = trainable(block)
    everything, moving = list(named.values()), set[int]()
    if not everything:
        return unmeasured("no parameters")
    for _ in range(6):
        flowed = bound(x)
        loss = 0.5 * flowed.z.square().sum() - flowed.logdet.sum()
        require(loss.requires_grad, "the loss depends on no parameter")
        gradients = torch.autograd.grad(loss, everything, allow_unused=True)
        reached = [
            (parameter, gradient)
            for parameter, gradient in zip(everything, gradients, strict=True)
            if gradient is not None and gradient.any()
        ]
        moving |= {id(parameter) for parameter, _ in reached}
        if len(moving) == len(everything):
            return unmeasured("every parameter starts to move")
        with torch.no_grad():
            for parameter, gradient in reached:
                parameter.sub_(gradient.sign(), alpha=0.01)
    still = ", ".join(name for name, parameter in named.items() if id(parameter) not in moving)
    raise LawBroken(f"after 6 steps no gradient has reached {still}")


@tried_in(PERTURBED)
@holds_under_dropout
def rows_draw_their_own_numbers(case: Case[FlowBlock]) -> Deviation:
    """In training all rows draw the same numbers, such as one mask of dropout."""
    if not case.draws or case.evaluation:
        return unmeasured("draws no random numbers")
    block = Bound(case.build(), same=True)
    x = sample(block.block, rows=1).expand(16, -1, -1)
    with torch.no_grad(), seeded("rows"):
        z = block(x).z
    require(bool((z != z[0]).any()), "16 equal rows are mapped to equal z")
    return unmeasured("rows draw their own numbers")
