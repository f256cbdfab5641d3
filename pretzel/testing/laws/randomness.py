"""The laws of global random states, for every part.

Who seeds them in a constructor gives all arms and all seeds of an ablation the same weights, and
every error bar is then false. Drawing from them is what an initialiser does.
"""

import torch
from torch import nn

from pretzel.rng import global_states
from pretzel.testing.deviation import Deviation, require, unmeasured
from pretzel.testing.global_state import changed_states, seeded
from pretzel.testing.gradients import trainable
from pretzel.testing.law_case import Case, holds_under_dropout

_DISTINCT = 8
"""A tensor of more distinct numbers than these is no pattern such as zeros, ones or an identity."""


@holds_under_dropout
def building_seeds_nothing(case: Case[object]) -> Deviation:
    """Building the part seeds a global random state, so that all seeds of a run are the same."""
    after = []
    for seed in (0, 1):
        with seeded("building", seed):
            case.factory()
            after.append(global_states())
    differing = changed_states(*after)
    for name in after[0]:
        require(
            name in differing,
            f"after building, the global random state of {name} is the same whatever it was before",
        )
    return unmeasured("global random states after building")


@holds_under_dropout
def initial_weights_follow_the_seed(case: Case[object]) -> Deviation:
    """The initial weights are the same under every seed of a run, or others under the same one."""
    weights = []
    for seed in (0, 0, 1):
        with seeded("weights", seed):
            part = case.factory()
        weights.append(trainable(part) if isinstance(part, nn.Module) else {})
    first, again, other = weights
    for name, parameter in first.items():
        require(parameter.equal(again[name]), f"{name} has two values under one seed")
    random = [name for name, p in first.items() if torch.unique(p).numel() > _DISTINCT]
    if random:
        differs = any(not first[name].equal(other[name]) for name in random)
        require(differs, f"equal under two seeds: {', '.join(random)}")
    return unmeasured("initial weights of two seeds")
