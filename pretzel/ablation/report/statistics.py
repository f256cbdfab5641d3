"""Means over seeds, paired differences to the baseline, and what so many seeds can tell at all."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

CONFIDENCE = 0.95
ALPHA = 0.05
POWER = 0.8
EXACT_SEEDS = 16
"""Up to so many seeds all sign flips are computed; beyond, 65,536 random ones."""


@dataclass(frozen=True, kw_only=True)
class SeedMean:
    """A mean over seeds, with half of its two-sided 95 % t interval."""

    mean: float  # NaN values are not hidden
    sd: float | None  # of the sample; None for a single seed
    half_width: float | None  # None for a single seed
    n: int


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A paired difference to the baseline, over the seeds that both arms have."""

    mean: SeedMean
    p: float | None  # of the sign-flip test; None where a difference is not a number
    p_holm: float | None  # the same, corrected over the arms compared
    smallest_p: float  # that p_holm could have been with these numbers of seeds
    detectable: float | None  # if the observed sd is the true one; None for a single seed

    @property
    def can_be_significant(self) -> bool:
        """Whether any outcome of so many seeds could have been."""
        return self.smallest_p <= ALPHA

    @property
    def significant(self) -> bool:
        """Whether the corrected exact test rejects; never where no outcome could."""
        return self.can_be_significant and self.p_holm is not None and self.p_holm <= ALPHA


def seed_mean(values: Sequence[float]) -> SeedMean:
    """Return mean and t interval of at least one value.

    The interval is mean ± t_{0.975, n-1} s / sqrt(n), with s the sample standard deviation.
    """
    data = np.asarray(values, dtype=np.float64)
    n = len(data)
    sd = half = None
    with np.errstate(invalid="ignore"):  # a diverged seed makes them NaN, and they are shown so
        mean = float(data.mean())
        if n > 1:
            sd = float(data.std(ddof=1))
            half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * sd / math.sqrt(n)
    return SeedMean(mean=mean, sd=sd, half_width=half, n=n)


def compare(differences: Mapping[str, Sequence[float]]) -> dict[str, Difference]:
    """Compare arms to the baseline in one metric, by their differences at the same seed.

    An arm without any is left out.
    """
    arms = {arm: values for arm, values in differences.items() if values}
    ps = {arm: sign_flip_p(values) for arm, values in arms.items()}
    corrected = holm({arm: p for arm, p in ps.items() if p is not None}, family=len(arms))
    # Holm's correction grows with every p, so that of the smallest p is the smallest.
    floors = holm({arm: smallest_p(len(values)) for arm, values in arms.items()})
    means = {arm: seed_mean(values) for arm, values in arms.items()}
    return {
        arm: Difference(
            mean=mean,
            p=ps[arm],
            p_holm=corrected.get(arm),
            smallest_p=floors[arm],
            detectable=None if mean.sd is None else detectable(mean.sd, mean.n),
        )
        for arm, mean in means.items()
    }


def sign_flip_p(differences: Sequence[float]) -> float | None:
    """Return the two-sided p of the paired sign-flip permutation test on the mean.

    Under the null hypothesis a difference is as likely as its negative, so all 2^n choices of signs
    are equally likely; p is the share whose mean is at least as far from zero: exact up to 16
    seeds, of 65,536 random flips beyond, None with a value that is not finite.
    """
    data = np.asarray(differences, dtype=np.float64)
    if not np.isfinite(data).all():
        return None
    if len(data) == 1:
        return 1.0
    test = stats.permutation_test(
        (data,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=2**EXACT_SEEDS,
        batch=max(1, 2**22 // len(data)),
        random_state=0,
    )
    return float(test.pvalue)


def smallest_p(n: int) -> float:
    """Return the smallest two-sided p that the sign-flip test reaches with n seeds: 2 / 2^n."""
    return min(1.0, math.ldexp(2.0, -min(n, EXACT_SEEDS + 1)))


def seeds_needed(arms: int) -> int:
    """Return the fewest seeds with which any of so many compared arms can be significant."""
    return math.ceil(math.log2(2 * arms / ALPHA))


def holm(ps: Mapping[str, float], family: int | None = None) -> dict[str, float]:
    """Return p values corrected by Holm's step-down procedure (Holm 1979).

    The i-th smallest of m becomes ``max_{k <= i} min(1, (m - k + 1) p_(k))``; m is ``family`` where
    some comparisons have no p value.
    """
    family = len(ps) if family is None else family
    corrected, largest = {}, 0.0
    for rank, arm in enumerate(sorted(ps, key=lambda arm: ps[arm])):
        largest = max(largest, min(1.0, (family - rank) * ps[arm]))
        corrected[arm] = largest
    return corrected


def detectable(sd: float, n: int) -> float:
    """Return the smallest true difference that n >= 2 pairs detect with 80 % power.

    Of the two-sided paired t test at the uncorrected 5 % level, with the non-central t distribution
    and the standard deviation of the differences; the other tail adds less than 1e-5 to the power
    and is left out.
    """
    if not math.isfinite(sd):
        return math.nan
    critical = float(stats.t.ppf(1 - ALPHA / 2, n - 1))

    def lacking(noncentrality: float) -> float:
        return float(stats.nct.sf(critical, n - 1, noncentrality)) - POWER

    upper = critical
    while lacking(upper) < 0:
        upper *= 1.25
    return float(optimize.brentq(lacking, 0.0, upper)) * sd / math.sqrt(n)
