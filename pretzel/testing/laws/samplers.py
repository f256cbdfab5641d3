"""The laws of samplers, on a small block that is far from the identity."""

from functools import partial
from typing import Any

import torch

from pretzel.flow import (
    AddedContext,
    AFBlock,
    AffineSoftplus,
    CausalTransformer,
    ClassVector,
    Flip,
    FlowStack,
    Raster,
)
from pretzel.sampling.guidance import GaussianMixing
from pretzel.sampling.samplers import Sampler, Sequential
from pretzel.sampling.stack import Sampled, invert_stack
from pretzel.testing.deviation import Deviation, require, unmeasured, within, worst_of
from pretzel.testing.law_case import Case, normal, perturb

GRID = (2, 4)
SAMPLING = 1e-9
"""Largest deviation from sequential sampling; the law cases stop at tolerances far below."""


class SamplingProblem:
    """Guided sampling of three classes, by two blocks of which the deeper reads the class."""

    def __init__(self) -> None:
        plain = partial(
            AFBlock, 2, GRID, 1, transform=AffineSoftplus(),
            conditioner=partial(CausalTransformer, width=16, head_dim=8),
        )  # fmt: skip
        context = partial(AddedContext, vector=partial(ClassVector, num_classes=3))
        self.stack = FlowStack([plain(Raster()), plain(Flip(), context=context)]).double()
        perturb(self.stack)
        self.z = normal(3, 8, 2, key="z")
        self.context = torch.tensor([0, 2, 1])

    def solve(self, sampler: Sampler, weight: float) -> Sampled:
        """Sample with Gaussian mixing of a weight."""
        with torch.no_grad():
            return invert_stack(
                self.stack,
                self.z,
                sampler,
                context=self.context,
                null_context=torch.full_like(self.context, -1),
                guidance=GaussianMixing(weight=weight),
            )


def samples_equal_sequential_ones(case: Case[Sampler]) -> Deviation:
    """Samples, guided or not, are not those of one position after the other."""
    task = SamplingProblem()
    results = []
    for weight in (0.0, 1.5):
        actual, expected = (task.solve(s, weight).x for s in (case.build(), Sequential()))
        results.append(within(actual, expected, SAMPLING, f"samples with guidance {weight:g}"))
    return worst_of(*results)


def work_is_reported(case: Case[Sampler]) -> Deviation:
    """The network evaluations of a block are not reported, or not as many as there were."""
    task = SamplingProblem()
    positions = [0, 0]

    def count(number: int, module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        positions[number] += args[0].shape[1]

    blocks = [block for block in task.stack if isinstance(block, AFBlock)]
    sampler = case.build()
    task.solve(sampler, 1.5)  # a sampler may first have to find its schedule
    for number, block in enumerate(reversed(blocks)):
        block.conditioner.register_forward_pre_hook(partial(count, number))
    sampled = task.solve(sampler, 1.5)
    reported = [work.positions for work in sampled.work]
    require(reported == positions, f"{reported} positions are reported, {positions} were run")
    require(all(w.evaluations > 0 for w in sampled.work), f"evaluations: {sampled.work}")
    return unmeasured("reported work")


def inputs_are_not_modified(case: Case[Sampler]) -> Deviation:
    """The sampler writes into the noise it is given."""
    task = SamplingProblem()
    before = task.z.clone()
    task.solve(case.build(), 1.5)
    return within(task.z, before, 0.0, "noise afterwards")


def inference_mode_changes_nothing(case: Case[Sampler]) -> Deviation:
    """Under inference mode the sampler fails or gives other samples."""
    task = SamplingProblem()
    expected = task.solve(case.build(), 1.5).x
    with torch.inference_mode():
        actual = task.solve(case.build(), 1.5).x
    return within(actual.clone(), expected, 0.0, "samples under inference mode")
