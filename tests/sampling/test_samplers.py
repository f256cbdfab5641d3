"""Samplers beyond their laws: what they report, find and refuse."""

from functools import partial

import pytest
import torch

from pretzel.flow import AFBlock, AffineSoftplus, FixedRandom, FlowStack, Identity, ZeroShift
from pretzel.sampling.denoisers import ScoreDenoiser
from pretzel.sampling.inversion import BlockInversion
from pretzel.sampling.samplers import (
    GaussSeidelJacobi,
    Jacobi,
    SelectiveJacobi,
    Sequential,
    trial_noise,
)
from pretzel.sampling.stack import invert_stack
from pretzel.testing import perturb
from pretzel.testing.law_case import normal
from pretzel.testing.laws.samplers import SamplingProblem
from pretzel.testing.tiny_model import transformer


def block(**options):
    made = AFBlock(
        2, (4, 4), 1, FixedRandom(seed=3), transform=AffineSoftplus(),
        conditioner=transformer(width=16, head_dim=8), **options,
    ).double()  # fmt: skip
    perturb(made)
    return made


def sampled(stack, sampler, z):
    with torch.no_grad():
        return invert_stack(stack, z, sampler)


@pytest.mark.parametrize("size", [1, 3, 5, 16, 40])
@pytest.mark.parametrize("start", [None, ZeroShift])
def test_any_block_size_is_exact_at_tolerance_zero(size, start):
    stack, z = FlowStack([block(start=start)]), normal(2, 16, 2, key="z")
    found = sampled(stack, Jacobi(block_size=size, tolerance=0.0), z)
    expected = sampled(stack, Sequential(), z)
    torch.testing.assert_close(found.x, expected.x, rtol=0, atol=1e-12)
    torch.testing.assert_close(stack(found.x).z, z, rtol=0, atol=1e-10)


def test_fewer_iterations_at_a_larger_tolerance_and_the_error_follows():
    stack, z = FlowStack([block(), block()]), normal(4, 16, 2, key="z")
    exact = sampled(stack, Sequential(), z).x
    runs = [sampled(stack, Jacobi(tolerance=t), z) for t in (1e-2, 1e-6, 1e-12)]
    counts = [sum(work.evaluations for work in run.work) for run in runs]
    errors = [float((run.x - exact).abs().mean()) for run in runs]
    assert counts == sorted(counts)
    assert counts[-1] < 32  # of sequential sampling
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-5


def test_the_iterations_of_each_block_are_reported_in_the_order_of_sampling():
    stack, z = (
        FlowStack([block(), Identity(2, (4, 4), 0, FixedRandom(0)), block()]),
        normal(2, 16, 2),
    )
    sampler = SelectiveJacobi(jacobi=Jacobi(tolerance=1e-3), num_sequential=1)
    first, second, third = sampled(stack, sampler, z).work
    assert (first.evaluations, first.positions) == (16, 16)
    assert (second.evaluations, second.positions) == (0, 0)
    assert third.evaluations < 16
    assert third.positions == 16 * third.evaluations


def test_limited_iterations_stop_early():
    stack, z = FlowStack([block()]), normal(2, 16, 2)
    loose = sampled(stack, Jacobi(tolerance=0.0, max_iterations=2), z)
    assert (loose.work[0].evaluations, loose.work[0].provisional) == (3, 2)  # one commits
    public = sampled(stack, Jacobi(tolerance=0.0, max_iterations=2, keep_last_iteration=True), z)
    assert (public.work[0].evaluations, public.work[0].provisional) == (2, 1)


def test_no_block_of_positions_is_iterated_more_often_than_it_has_positions():
    stack, z = FlowStack([block()]), normal(2, 16, 2)
    found = sampled(stack, Jacobi(block_size=10, tolerance=0.0, max_iterations=100), z)
    assert found.work[0].evaluations == 10 + 6
    assert found.work[0].provisional == 9 + 5


def test_what_stays_in_the_cache_is_the_solution_unless_asked_otherwise():
    stack, z = FlowStack([block()]), normal(2, 16, 2)
    exact = sampled(stack, Sequential(), z).x
    options = {"block_size": 8, "tolerance": 0.0, "max_iterations": 4}
    ours = sampled(stack, Jacobi(**options), z).x
    public = sampled(stack, Jacobi(**options, keep_last_iteration=True), z).x
    assert (ours - exact).abs().mean() < (public - exact).abs().mean()


def test_a_schedule_is_found_once_and_goes_on_in_a_later_run():
    stack, z = FlowStack([block(), block()]), normal(6, 16, 2)
    sampler = GaussSeidelJacobi(tolerance=1e-20, num_samples=2, overhead=8.0)
    assert sampler.state() == {"schedule": {}}
    expected = sampled(stack, sampler, z)
    state = sampler.state()
    assert set(state["schedule"]) == {"0", "1"}
    assert all(1 <= count <= 16 for count in state["schedule"].values())
    later = GaussSeidelJacobi(tolerance=1e-20)
    later.load_state(state)
    again = sampled(stack, later, z)
    assert torch.equal(again.x, expected.x)
    assert again.work == expected.work
    assert later.state() == state


def test_the_found_schedule_is_the_cheapest_that_was_tried():
    stack = FlowStack([block()])
    z = trial_noise(2, 16, 2)
    sampler = GaussSeidelJacobi(tolerance=1e-12, num_samples=2, overhead=8.0)
    sampled(stack, sampler, z)

    def cost(segments):
        run = sampled(stack, GaussSeidelJacobi(tolerance=1e-12, schedule=[segments]), z)
        return run.work[0].evaluations * 8.0 + run.work[0].positions

    costs = {segments: cost(segments) for segments in (1, 2, 4, 8)} | {16: 16 * 9.0}
    assert costs[sampler.schedule[0]] == min(costs.values())


def test_a_schedule_depends_on_the_model_and_not_on_the_batch():
    found = []
    for rows, scale in (([0, 1, 2], 1.0), ([2], 10.0), ([1, 1], 0.0)):
        sampler = GaussSeidelJacobi(tolerance=1e-12, num_samples=4, overhead=2.0)
        own = SamplingProblem()
        own.z, own.context = own.z[rows] * scale, own.context[rows]
        own.solve(sampler, 1.5)
        found.append(sampler.state())
        # Each block is tried on what the one before it gives.
        torch.testing.assert_close(sampler._trial, trials(own.stack, 4), rtol=0, atol=1e-5)
    assert found[0] == found[1] == found[2]


def trials(stack, num):
    z = trial_noise(num, 9, 2)
    null = torch.full((num,), -1)
    sampler = GaussSeidelJacobi(tolerance=1e-12, schedule=[8, 8])
    with torch.no_grad():
        return invert_stack(stack, z, sampler, context=null, null_context=null).x


def test_the_change_of_an_iteration_is_read_from_the_device_once(monkeypatch):
    reads = []
    item, tolist = torch.Tensor.item, torch.Tensor.tolist
    for name, read in (("item", item), ("__float__", torch.Tensor.__float__), ("tolist", tolist)):

        def counted(tensor, *args, read=read):
            reads.append(tensor.shape)
            return read(tensor, *args)

        monkeypatch.setattr(torch.Tensor, name, counted)
    inversion = BlockInversion(block(), normal(2, 16, 2))
    reads.clear()
    with torch.no_grad():
        work = Jacobi(tolerance=1e-20).solve(inversion, 0)
    assert len(reads) == work.evaluations - 1  # the last one commits


def test_a_schedule_that_is_too_short_is_refused():
    stack, z = FlowStack([block(), block()]), normal(2, 16, 2)
    with pytest.raises(ValueError, match="segments for each block, got 1 for block 1"):
        sampled(stack, GaussSeidelJacobi(schedule=[4]), z)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(Jacobi, block_size=0), "block_size must be positive, got 0"),
        (partial(Jacobi, max_iterations=0), "max_iterations must be positive, got 0"),
        (partial(Jacobi, tolerance=-1.0), "tolerance must be 0 or positive, got -1.0"),
        (partial(SelectiveJacobi, Jacobi(), -1), "num_sequential must be 0 or positive, got -1"),
        (partial(GaussSeidelJacobi, num_samples=0), "num_samples must be positive, got 0"),
        (
            partial(GaussSeidelJacobi, schedule=[2, 0]),
            r"positive numbers of segments, got \[2, 0\]",
        ),
    ],
)
def test_numbers_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_noise_that_is_not_finite_is_refused_by_name():
    stack, z = FlowStack([block()]), normal(2, 16, 2)
    z[1, 3, 0] = torch.inf
    with pytest.raises(ValueError, match=r"AFBlock: z must be finite, got inf at \[1, 3, 0\]"):
        sampled(stack, Jacobi(), z)


def test_the_score_denoiser_leaves_inference_mode_behind_any_sampler():
    given = SamplingProblem()
    with torch.inference_mode():
        x = given.solve(Jacobi(tolerance=1e-8), 1.5).x

        def log_prob(point):
            flowed = given.stack(point, given.context)
            return flowed.logdet - 0.5 * flowed.z.square().sum(dim=(1, 2))

        clean = ScoreDenoiser()(x, 0.1, log_prob)
    assert clean.isfinite().all()
    assert not torch.equal(clean, x)
