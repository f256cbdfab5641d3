"""The laws of samplers, on small blocks that are far from the identity."""

import json
from functools import partial
from typing import Any

import torch
from typing_extensions import override

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
from pretzel.sampling.inversion import BlockInversion
from pretzel.sampling.samplers import Sampler, Sequential
from pretzel.sampling.stack import Sampled, invert_stack
from pretzel.testing.deviation import Deviation, require, unmeasured, within, worst_of
from pretzel.testing.global_state import untouched
from pretzel.testing.law_case import Case, normal, perturb
from pretzel.typing import Float, Tensor

GRID = (3, 3)
LARGE_GRID = (5, 7)
SAMPLING = 1e-9
"""Largest deviation from sequential sampling; the law cases stop at tolerances far below."""


class SamplingProblem:
    """Guided sampling of three classes, by two blocks of which the deeper reads the class."""

    def __init__(self, grid: tuple[int, int] = GRID, rows: int = 3) -> None:
        plain = partial(
            AFBlock, 2, grid, 1, transform=AffineSoftplus(),
            conditioner=partial(CausalTransformer, width=16, head_dim=8),
        )  # fmt: skip
        context = partial(AddedContext, vector=partial(ClassVector, num_classes=3))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            self.stack = FlowStack([plain(Raster()), plain(Flip(), context=context)]).double()
        perturb(self.stack)
        self.z = normal(rows, grid[0] * grid[1], 2, key="z")
        self.context = torch.tensor([0, 2, 1])[torch.arange(rows) % 3]

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
    results = []
    for task in (SamplingProblem(), SamplingProblem(LARGE_GRID, rows=6)):
        for weight in (0.0, 2.5):
            actual, expected = (task.solve(s, weight).x for s in (case.build(), Sequential()))
            what = f"samples of {task.z.shape[1]} positions with guidance {weight:g}"
            results.append(within(actual, expected, SAMPLING, what))
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


class _CountedInversion(BlockInversion):
    """An inversion that holds its sampler to committing positions in order, each once."""

    committed = evaluations = standing = 0
    last = (0, 0)

    @override
    def step(self, index: int) -> None:
        where = f"position {index} is stepped to behind {self.committed} committed ones"
        require(index == self.committed, where)
        self.committed = index + 1
        self._count()
        super().step(index)

    @override
    def evaluate(self, start: int, stop: int) -> Float[Tensor, "b k d"]:
        where = f"positions {start}..{stop - 1} are evaluated behind {self.committed} committed"
        require(start == self.committed < stop, where)
        self.committed, self.last = stop, (start, stop)
        self._count()
        return super().evaluate(start, stop)

    @override
    def rewind(self, start: int, stop: int) -> None:
        where = f"positions {start}..{stop - 1} are taken back behind an evaluation of {self.last}"
        require((start, stop) == self.last and stop == self.committed, where)
        self.committed = start
        self.standing -= 1
        super().rewind(start, stop)

    def _count(self) -> None:
        self.evaluations += 1
        self.standing += 1


def positions_are_committed_once(case: Case[Sampler]) -> Deviation:
    """A position stays in the cache twice or not at all, or is read before those before it are."""
    for grid in (GRID, LARGE_GRID):
        task, sampler = SamplingProblem(grid), case.build()
        block = list(task.stack)[-1]
        assert isinstance(block, AFBlock)
        guidance, null = GaussianMixing(weight=1.5), torch.full_like(task.context, -1)
        inversion = _CountedInversion(block, task.z, task.context, null, guidance)
        with torch.no_grad():
            work = sampler.solve(inversion, 0)
        n = inversion.num_positions
        require(inversion.committed == n, f"{inversion.committed} positions of {n} are committed")
        reported = (work.evaluations, work.evaluations - work.provisional)
        counted = (inversion.evaluations, inversion.standing)
        require(reported == counted, f"evaluations, and those that commit: {reported} of {counted}")
    return unmeasured("each position once")


def solving_leaves_no_trace(case: Case[Sampler]) -> Deviation:
    """Samples depend on what the sampler solved before, or solving touches the random states."""
    task, shorter, other = SamplingProblem(), SamplingProblem((1, 5), rows=2), SamplingProblem()
    other.z = other.z.flip(0)
    sampler = case.build()
    with untouched("sampling"):
        first = task.solve(sampler, 1.5)
    results = []
    for between in ((), (shorter, other)):
        for problem in between:
            problem.solve(sampler, 1.5)
        again = task.solve(sampler, 1.5)
        require(again.work == first.work, f"work {first.work} becomes {again.work} once more")
        results.append(within(again.x, first.x, 0.0, "samples once more"))
    return worst_of(*results)


def state_carries_what_was_learned(case: Case[Sampler]) -> Deviation:
    """The state is not of plain types, or a sampler that takes it over goes on otherwise."""
    task, sampler, other = SamplingProblem(), case.build(), case.build()
    first = task.solve(sampler, 1.5)
    state = sampler.state()
    try:
        read = json.loads(json.dumps(state))
    except TypeError as error:
        raise AssertionError(f"state {state} is not of plain types: {error}") from error
    require(read == state, f"state {state} is {read} when it is read from a file")
    other.load_state(read)
    require(other.state() == state, f"state {state} becomes {other.state()} when it is loaded")
    sampled = task.solve(other, 1.5)
    require(sampled.work == first.work, f"work {first.work} becomes {sampled.work} with the state")
    return within(sampled.x, first.x, 0.0, "samples with the state of another sampler")


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
