"""Estimate of the time that the rest of a grid takes, from finished runs or a probe."""

import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pretzel.ablation.gridfile.run_config import without
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
    by_name = {run.name: run for run in plan.runs}
    total, num_finished, num_probed = 0.0, 0, 0
    unknown = []
    for run in plan.runs:
        if states[run.name] is State.DONE:
            continue
        trainer = by_name.get(run.trained_by or "")
        if trainer is not None and (trainer.family, True) in measured:  # it is only tested
            both = (statistics.mean(measured[trainer.family, tests]) for tests in (True, False))
            total += max(next(both) - next(both), 0.0)
            num_finished += 1
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


def probe_all(plan: Plan, runs: Iterable[PlannedRun]) -> dict[str, float]:
    """Return the seconds of a run's training by family, estimated by its first steps.

    One run of each family is tried, and that is said on standard error; those that fail are left
    out. The stages that it starts from need not have run.
    """
    one_each = {run.family: run for run in runs if run.trained_by is None}
    seconds: dict[str, float] = {}
    for number, (family, run) in enumerate(one_each.items()):
        print(f"probing {run.name} ({number + 1} of {len(one_each)})", file=sys.stderr, flush=True)
        process = _first_steps(plan, run)
        if process.returncode:
            lines = process.stderr.strip().splitlines() or [f"exit code {process.returncode}"]
            error = f"{run.name}: its first steps failed: {lines[-1]}"
            print(error, file=sys.stderr, flush=True)
        else:  # the module's own prints come first
            seconds[family] = float(process.stdout.strip().splitlines()[-1])
    return seconds


def _first_steps(plan: Plan, run: PlannedRun) -> subprocess.CompletedProcess[str]:
    weights = [plan.grid.output / name / "weights.safetensors" for name in run.needs]
    missing = {str(path) for path in weights if not path.exists()}
    return subprocess.run(
        [sys.executable, "-m", "pretzel.ablation.planning.time_probe"],
        input=json.dumps(without(run.config, missing)),
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
        check=False,
    )
