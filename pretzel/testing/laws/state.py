"""The laws of a flow block's state: its state dict holds it, and calls and other blocks do not."""

import copy

import torch

from pretzel.flow.block import FlowBlock
from pretzel.rng import global_states
from pretzel.testing.deviation import Deviation, LawBroken, require, unmeasured, within, worst_of
from pretzel.testing.global_state import changed_states, has_drawn, seeded
from pretzel.testing.law_case import (
    FP64,
    INITIAL_EVAL,
    PERTURBED,
    PERTURBED_EVAL,
    Case,
    holds_under_dropout,
    tried_in,
)
from pretzel.testing.laws.blocks import Bound, sample, sample_of_scales


@tried_in(PERTURBED, PERTURBED_EVAL)
@holds_under_dropout
def state_dict_holds_everything(case: Case[FlowBlock]) -> Deviation:
    """A block loaded from the state dict of a used one computes something else."""
    block, other = copy.deepcopy(case.build()), case.build(seed=1)
    for training in (True, False):
        block.train(training)
        for key in ("x", "other"):
            Bound(block)(sample_of_scales(block, key))
    with torch.no_grad():
        Bound(block).inverse(sample(block))
    other.load_state_dict(block.state_dict())
    results = []
    for part in (block, other):
        part.train(not case.evaluation)
        with torch.no_grad(), seeded("loading"):
            results.append(Bound(part)(sample(part)))
    first, second = results
    return worst_of(
        within(second.z, first.z, 0.0, "z after loading"),
        within(second.logdet, first.logdet, 0.0, "logdet after loading"),
    )


@tried_in(INITIAL_EVAL, PERTURBED_EVAL)
def calls_leave_no_trace(case: Case[FlowBlock]) -> Deviation:
    """In evaluation mode a result depends on earlier calls, or on a global random state."""
    block = Bound(case.build())
    x, other = sample(block.block), sample_of_scales(block.block, key="other")
    results = []
    for seed in (0, 1):
        with torch.no_grad(), seeded("calls", seed):
            before = global_states()
            results.append((block(x), block.inverse(x)))
            require(not has_drawn(before, global_states()), "evaluation draws random numbers")
            block(other), block.inverse(sample(block.block, key="z"))
    (first, back), (second, again) = results
    return worst_of(
        within(second.z, first.z, 0.0, "z of a second call"),
        within(second.logdet, first.logdet, 0.0, "logdet of a second call"),
        within(again, back, 0.0, "inverse of a second call"),
    )


@tried_in(PERTURBED)
@holds_under_dropout
def training_seeds_nothing(case: Case[FlowBlock]) -> Deviation:
    """Calling the block in training seeds a global random state, so that all steps are alike."""
    block = Bound(case.build())
    x = sample(block.block)
    after = []
    for seed in (0, 1):
        with torch.no_grad(), seeded("training", seed):
            block(x), block.inverse(x)
            after.append(global_states())
    for name in set(after[0]) - set(changed_states(*after)):
        raise LawBroken(f"the global random state of {name} is the same whatever it was before")
    return unmeasured("global random states after calls")


@tried_in(PERTURBED_EVAL)
def blocks_in_a_stack_invert(case: Case[FlowBlock]) -> Deviation:
    """Three blocks one after the other are not inverted by their inverses: they share state."""
    first = case.build()
    x = sample(first)
    with torch.no_grad():
        alone = Bound(first)(x)
        blocks = [Bound(block) for block in (first, case.build(seed=1), case.build(seed=2))]
        z = x
        for block in blocks:
            z = block(z).z
        for block in reversed(blocks):
            z = block.inverse(z)
        return worst_of(
            within(z, x, FP64, "inverse of three blocks"),
            within(Bound(first)(x).z, alone.z, 0.0, "z beside two other blocks"),
        )
