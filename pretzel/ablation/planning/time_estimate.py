"""How long the rest of a grid takes: by what is finished, or by a probe of a few steps."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from pretzel.ablation.ledger import RunFolder, State
from pretzel.ablation.planning.plan import Plan, PlannedRun


@dataclass(frozen=True, kw_only=True)
class TimeEstimate:
    """The time that the runs still take, one after the other.

    Attributes:
        seconds: Of those whose time is known.
        finished: Number of runs that are estimated by finished ones.
        probed: Number of runs that are estimated by a probe, which does not evaluate.
        unknown: The runs of whose kind none is finished or was probed.
    """

    seconds: float
    finished: int
    probed: int
    unknown: tuple[PlannedRun, ...]


def folder_of(plan: Plan, cell: PlannedRun) -> RunFolder:
    """Return the folder of a run."""
    return RunFolder(path=plan.grid.output / cell.name)


def states(plan: Plan) -> dict[str, State]:
    """Return where each run stands, by name."""
    return {
        cell.name: folder_of(plan, cell).state(cell.identity, cell.evaluation) for cell in plan.runs
    }


def estimate(
    plan: Plan, stands: Mapping[str, State], probed: Mapping[str, float] | None = None
) -> TimeEstimate:
    """TimeEstimate the time of what is not done.

    Args:
        plan: The plan.
        stands: From :func:`states`.
        probed: Seconds of a run, by its family.
    """
    measured: dict[tuple[str, bool], list[float]] = {}
    for cell in plan.runs:
        result = folder_of(plan, cell).result if stands[cell.name] is State.DONE else None
        if result is not None:
            seconds = result.get("train_seconds", 0.0)
            measured.setdefault((cell.family, False), []).append(float(seconds))
            if cell.tests:
                whole = float(result.get("seconds", seconds))
                measured.setdefault((cell.family, True), []).append(whole)
    total, by_finished, by_probe = 0.0, 0, 0
    unknown = []
    for cell in plan.runs:
        if stands[cell.name] is State.DONE:
            continue
        if (cell.family, cell.tests) in measured:
            seconds = statistics.mean(measured[cell.family, cell.tests])
            by_finished += 1
        elif probed is not None and cell.family in probed:
            seconds = probed[cell.family]
            by_probe += 1
        else:
            unknown.append(cell)
            continue
        spent = 0.0
        if stands[cell.name] in (State.RUNNING, State.INTERRUPTED):
            spent = float(folder_of(plan, cell).progress.get("seconds", 0.0))
        total += max(seconds - spent, 0.0)
    return TimeEstimate(
        seconds=total, finished=by_finished, probed=by_probe, unknown=tuple(unknown)
    )
