"""The laws of samplers, on a small block that is far from the identity."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from pretzel.flow.af_block import AFBlock
from pretzel.flow.block import FlowStack
from pretzel.flow.context import AddedContext, ClassVector
from pretzel.flow.permutations import Flip, Raster
from pretzel.flow.transformer import CausalTransformer
from pretzel.flow.transforms import AffineSoftplus
from pretzel.sampling.guidance import GaussianMixing
from pretzel.sampling.samplers import Sampler, Sequential
from pretzel.sampling.stack import Sampled, invert_stack
from pretzel.testing.deviation import Deviation, require, unmeasured, within, worst_of
from pretzel.testing.law_case import Case, normal, perturb
from pretzel.typing import Float, Int, Tensor

GRID = (2, 4)
SAMPLING = 1e-9
"""Largest deviation from sequential sampling; the law cases stop at tolerances far below."""


@dataclass(frozen=True, kw_only=True)
class SamplingProblem:
    """A sampling problem with guidance.

    Attributes:
        stack: Two blocks, of which the deeper reads a class.
        z: Noise.
        context: Classes.
        null_context: No classes.
    """

    stack: FlowStack
    z: Float[Tensor, "b n d"]
    context: Int[Tensor, " b"]
    null_context: Int[Tensor, " b"]

    def solve(self, sampler: Sampler, weight: float) -> Sampled:
        """Sample with Gaussian mixing of a weight."""
        with torch.no_grad():
            return invert_stack(
                self.stack,
                self.z,
                sampler,
                context=self.context,
                null_context=self.null_context,
                guidance=GaussianMixing(weight=weight),
            )


def problem() -> SamplingProblem:
    """Return the problem, float64."""
    conditioner = partial(CausalTransformer, width=16, head_dim=8)
    shallow = AFBlock(2, GRID, 1, Raster(), transform=AffineSoftplus(), conditioner=conditioner)
    deep = AFBlock(
        2, GRID, 1, Flip(), transform=AffineSoftplus(), conditioner=conditioner,
        context=partial(AddedContext, vector=partial(ClassVector, num_classes=3)),
    )  # fmt: skip
    stack = FlowStack([shallow, deep]).double()
    perturb(stack)
    labels = torch.tensor([0, 2, 1])
    return SamplingProblem(
        stack=stack,
        z=normal(3, 8, 2, key="z"),
        context=labels,
        null_context=torch.full_like(labels, -1),
    )


def samples_equal_sequential_ones(case: Case[Sampler]) -> Deviation:
    """Samples, guided or not, are not those of one position after the other."""
    task = problem()
    return worst_of(
        [
            within(
                task.solve(case.build(), weight).x,
                task.solve(Sequential(), weight).x,
                SAMPLING,
                f"samples with guidance {weight:g}",
            )
            for weight in (0.0, 1.5)
        ]
    )


def work_is_reported(case: Case[Sampler]) -> Deviation:
    """The network evaluations of a block are not reported, or not as many as there were."""
    task = problem()
    positions = [0, 0]
    hooks = [
        block.conditioner.register_forward_pre_hook(partial(_count, positions, number))
        for number, block in enumerate(reversed([b for b in task.stack if isinstance(b, AFBlock)]))
    ]
    sampler = case.build()
    task.solve(sampler, 1.5)  # a sampler may first have to find its schedule
    positions[:] = [0, 0]
    sampled = task.solve(sampler, 1.5)
    for hook in hooks:
        hook.remove()
    reported = [work.positions for work in sampled.work]
    require(reported == positions, f"{reported} positions are reported, {positions} were run")
    require(all(w.evaluations > 0 for w in sampled.work), f"evaluations: {sampled.work}")
    return unmeasured("reported work")


def _count(
    positions: list[int], number: int, module: torch.nn.Module, args: tuple[Any, ...]
) -> None:
    positions[number] += args[0].shape[1]


def inputs_are_not_modified(case: Case[Sampler]) -> Deviation:
    """The sampler writes into the noise it is given."""
    task = problem()
    before = task.z.clone()
    task.solve(case.build(), 1.5)
    return within(task.z, before, 0.0, "noise afterwards")


def inference_mode_changes_nothing(case: Case[Sampler]) -> Deviation:
    """Under inference mode the sampler fails or gives other samples."""
    task = problem()
    expected = task.solve(case.build(), 1.5).x
    with torch.inference_mode():
        actual = task.solve(case.build(), 1.5).x
    return within(actual.clone(), expected, 0.0, "samples under inference mode")
