"""The statistics against values by hand, scipy's own, and what they must be under the null."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from pretzel.ablation.report.statistics import (
    ALPHA,
    compare,
    detectable,
    holm,
    seed_mean,
    seeds_needed,
    sign_flip_p,
    smallest_p,
)


def test_mean_and_interval_by_hand():
    # mean 0.3, s^2 = (0.2^2 + 0.1^2 + 0.3^2) / 2 = 0.07; t_{0.975, 2} = 4.302653
    found = seed_mean([0.1, 0.2, 0.6])
    assert found.mean == pytest.approx(0.3)
    assert found.sd == pytest.approx(math.sqrt(0.07))
    assert found.half_width == pytest.approx(4.302652729911275 * math.sqrt(0.07 / 3))
    assert seed_mean([0.5]).half_width is None


def test_interval_is_scipys():
    values = np.random.default_rng(0).normal(3, 2, 7)
    low, high = stats.ttest_1samp(values, 0).confidence_interval()
    found = seed_mean(values.tolist())
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx(
        (low, high)
    )


@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_sign_flips_by_counting(n):
    d = np.random.default_rng(n).normal(0.5, 1, n)
    flipped = [
        abs(np.mean(d * signs)) >= abs(d.mean()) - 1e-12
        for signs in itertools.product((-1, 1), repeat=n)
    ]
    assert sign_flip_p(d.tolist()) == pytest.approx(np.mean(flipped))
    assert sign_flip_p((-d).tolist()) == pytest.approx(np.mean(flipped))


def test_sign_flips_of_special_values():
    assert sign_flip_p([0.3]) == 1.0
    assert sign_flip_p([0.0, 0.0, 0.0]) == 1.0
    assert sign_flip_p([1.0, 1.0, 1.0, 1.0, 1.0]) == 2 / 32  # all agree: the smallest there is
    assert sign_flip_p([0.1, math.nan, 0.2]) is None
    assert sign_flip_p([0.1, math.inf]) is None


def test_p_is_uniform_under_the_null():
    """P(p <= a) <= a at every reachable level, and equal to it: the test is exact."""
    draws = np.random.default_rng(0).standard_t(3, (2000, 5))
    p = np.array([sign_flip_p(d.tolist()) for d in draws])
    for level in (2 / 32, 4 / 32, 8 / 32, 16 / 32):
        sd = math.sqrt(level * (1 - level) / len(p))
        assert np.mean(p <= level + 1e-12) == pytest.approx(level, abs=4 * sd)


def test_many_seeds_are_sampled():
    d = np.random.default_rng(0).normal(0.3, 1, 24)
    assert sign_flip_p(d.tolist()) == sign_flip_p(d.tolist())
    assert sign_flip_p(d.tolist()) == pytest.approx(stats.ttest_1samp(d, 0).pvalue, abs=0.02)
    assert sign_flip_p([1.0] * 24) < 1e-4
    assert smallest_p(24) <= sign_flip_p([1.0] * 24)


def test_holm_by_a_worked_example():
    # sorted 0.01, 0.02, 0.03, 0.05 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.05; then monotone
    found = holm({"a": 0.02, "b": 0.05, "c": 0.01, "d": 0.03})
    assert found == pytest.approx({"c": 0.04, "a": 0.06, "d": 0.06, "b": 0.06})
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}
    assert holm({"a": 0.01}, family=3) == pytest.approx({"a": 0.03})
    assert holm({}) == {}


def test_three_seeds_are_never_significant():
    draw = np.random.default_rng(0)
    for _ in range(50):
        arms = {arm: draw.normal(100, 1e-3, 3).tolist() for arm in "bcd"}
        found = compare(arms)
        assert all(d.p == 0.25 and d.p_holm == 0.75 and not d.significant for d in found.values())
        assert not any(d.can_be_significant for d in found.values())


@pytest.mark.parametrize("n", range(1, 12))
@pytest.mark.parametrize("arms", [1, 2, 7])
def test_nothing_is_significant_that_cannot_be(n, arms):
    """With all seeds agreeing p is the smallest there is; then significant means reachable."""
    found = compare({str(arm): [1.0 + arm] * n for arm in range(arms)})
    for difference in found.values():
        assert difference.p == smallest_p(n)
        assert difference.p_holm == difference.smallest_p == min(1, arms * smallest_p(n))
        assert (
            difference.significant == (arms * smallest_p(n) <= ALPHA) == (n >= seeds_needed(arms))
        )


def test_the_smallest_p_is_a_bound_for_unequal_seeds():
    draw = np.random.default_rng(1)
    for _ in range(100):
        sizes = draw.integers(1, 9, 4)
        found = compare({str(i): draw.normal(1, 1, n).tolist() for i, n in enumerate(sizes)})
        assert all(d.smallest_p <= d.p_holm + 1e-12 for d in found.values())


def test_a_diverged_arm_counts_in_the_family():
    found = compare({"b": [math.nan, 1.0, 1.0], "c": [1.0] * 6, "d": []})
    assert math.isnan(found["b"].mean.mean)
    assert found["b"].p is None
    assert found["b"].p_holm is None
    assert not found["b"].significant
    assert found["c"].p_holm == 2 * 2 / 64  # two arms are compared
    assert set(found) == {"b", "c"}


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_power_at_the_detectable_difference(n):
    """Simulated paired t tests at that difference reject in 80 % of the cases."""
    sd, draws = 0.7, 20_000
    true = detectable(sd, n)
    samples = np.random.default_rng(n).normal(true, sd, (draws, n))
    rejected = np.mean(stats.ttest_1samp(samples, 0, axis=1).pvalue <= 0.05)
    assert rejected == pytest.approx(0.8, abs=4 * math.sqrt(0.16 / draws))


def test_detectable_of_special_values():
    assert detectable(0.0, 5) == 0.0
    assert math.isnan(detectable(math.nan, 5))
    assert compare({"b": [0.5]})["b"].detectable is None
