"""The laws of learning-rate schedules, and the cases of those that are shipped."""

import math
import sys
from collections.abc import Callable
from functools import partial

from pretzel.testing.deviation import Deviation, require, unmeasured
from pretzel.testing.global_state import untouched
from pretzel.testing.law_case import Case
from pretzel.testing.suite import Law, laws_in
from pretzel.training.schedule import Constant, Schedule, WarmupCosine

LENGTHS = (1, 2, 100, 1001)


def factors(schedule: Schedule, total_steps: int) -> list[float]:
    """Return the factor of every step, and of one behind the last, which Lightning asks for."""
    return [schedule.factor(step, total_steps) for step in range(total_steps + 1)]


def factors_are_numbers(case: Case[Schedule]) -> Deviation:
    """A factor is negative or not finite, or that of no step is positive: nothing would train."""
    schedule = case.build()
    for total in LENGTHS:
        values = factors(schedule, total)
        wrong = [(s, v) for s, v in enumerate(values) if not (v >= 0 and math.isfinite(v))]
        require(not wrong, f"of {total} steps, step and factor {wrong[:1]}")
        require(max(values[:total]) > 0, f"of {total} steps, no factor is positive")
    return unmeasured("factors")


def factors_follow_from_the_step(case: Case[Schedule]) -> Deviation:
    """A factor depends on which steps were asked for before: a resumed run has others."""
    schedule, other = case.build(), case.build(seed=1)
    for total in LENGTHS:
        with untouched("asking for factors"):
            expected = factors(schedule, total)
        backwards = [other.factor(step, total) for step in reversed(range(total + 1))][::-1]
        wrong = [step for step in range(total + 1) if expected[step] != backwards[step]]
        require(not wrong, f"of {total} steps, factors {wrong[:5]} differ when asked in reverse")
        require(factors(schedule, total) == expected, f"factors of {total} steps differ once more")
    return unmeasured("factors in any order")


LAWS: dict[type, list[Law]] = {Schedule: laws_in(sys.modules[__name__])}
CASES: dict[type, list[Callable[[], object]]] = {
    Constant: [Constant],
    WarmupCosine: [WarmupCosine, partial(WarmupCosine, warmup_steps=10, final_factor=0.0)],
}
WITHOUT_CASE: dict[type, str] = {}
