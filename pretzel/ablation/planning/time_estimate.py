"""Estimate of the time that the rest of a grid takes, from finished runs or a probe."""

import statistics
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from pretzel.ablation.ledger import State
from pretzel.ablation.planning.plan import Plan, PlannedRun


@dataclass(frozen=True, kw_only=True)
class TimeEstimate:
    """Time that the runs still take, one after the other.

    Attributes:
        seconds: The sum over the runs whose time is known.
        finished: Number of runs that are estimated by finished ones.
        probed: Number of runs that are estimated by a probe, which does not evaluate.
        unknown: The runs of whose kind none is finished or was probed.
    """

    seconds: float
    finished: int
    probed: int
    unknown: tuple[PlannedRun, ...]


def estimate_time(
    plan: Plan, states: Mapping[str, State], probed: Mapping[str, float] | None = None
) -> TimeEstimate:
    """Estimate the time of the runs that are not done; probes give seconds by family."""
    # those of a family take equally long; those that are tested too take longer
    measured: dict[tuple[str, bool], list[float]] = defaultdict(list)
    for run in plan.runs:
        if states[run.name] is State.DONE and (result := plan.folder(run).result):
            seconds = float(result.get("train_seconds", 0.0))
            measured[run.family, False].append(seconds)
            if run.tests:
                measured[run.family, True].append(float(result.get("seconds", seconds)))
    total, num_finished, num_probed = 0.0, 0, 0
    unknown = []
    for run in plan.runs:
        if states[run.name] is State.DONE:
            continue
        if (run.family, run.tests) in measured:
            seconds = statistics.mean(measured[run.family, run.tests])
            num_finished += 1
        elif probed is not None and run.family in probed:
            seconds = probed[run.family]
            num_probed += 1
        else:
            unknown.append(run)
            continue
        is_begun = states[run.name] in (State.RUNNING, State.INTERRUPTED)
        spent = float(plan.folder(run).progress.get("seconds", 0.0)) if is_begun else 0.0
        total += max(seconds - spent, 0.0)
    return TimeEstimate(
        seconds=total, finished=num_finished, probed=num_probed, unknown=tuple(unknown)
    )
