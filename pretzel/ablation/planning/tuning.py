"""Tuning inside an arm, on validation, before the comparison: no arm wins by its learning rate."""

import math
import re
from collections.abc import Mapping
from typing import Any

from pretzel.ablation.gridfile.grid import Override
from pretzel.ablation.planning.plan import Candidate, Plan, PlannedRun
from pretzel.errors import UserError, did_you_mean

_MAX_NAME_LENGTH = 60


def candidate_runs(plan: Plan, arm: str) -> set[str]:
    """Return the names of the runs that try candidates of an arm, in its runs or before them."""
    runs = {run.name: run for run in plan.runs}
    names = [run.name for run in plan.compared if run.arm == arm]
    for name in names:  # grows while it is read
        names += [need for need in runs[name].needs if need not in names]
    return {candidate.run for name in names for candidate in runs[name].candidates}


def label(overrides: tuple[Override, ...]) -> str:
    """Return, for example, ``model.lr=0.01, model.size=3``."""
    return ", ".join(f"{one.key}={_value_text(one.value)}" for one in overrides)


def run_name(arm: str, overrides: tuple[Override, ...], identity: str) -> str:
    """Return the name, which is a folder, of the run that tries a candidate."""
    values = ",".join(f"{o.key.rpartition('.')[2]}={_value_text(o.value)}" for o in overrides)
    readable = re.sub(r"[^A-Za-z0-9._=,+-]+", "_", values)[:_MAX_NAME_LENGTH]
    # values may be cut or equal in their readable part: the identity tells the runs apart
    return f"tuning/{arm}-{readable}-{identity[:8]}"


def best_candidate(
    run: PlannedRun, results: Mapping[str, Mapping[str, Any] | None]
) -> tuple[Candidate, str]:
    """Return the candidate of a tuned run that is best on validation, and a sentence about it.

    Of equals it is the first. A run without a result has failed, and lost.

    Raises:
        UserError: If all candidates failed, or one has not logged the metric.
    """
    tuning = run.tuning
    assert tuning is not None, "only tuned runs choose"
    scores: list[tuple[float, Candidate]] = []
    for candidate in run.candidates:
        result = results[candidate.run]
        if result is None:
            continue
        metrics = result["metrics"]
        if tuning.metric not in metrics:
            near = did_you_mean(tuning.metric, metrics)
            raise UserError(
                f"tuning.metric: {candidate.run} has logged no {tuning.metric}{near}; "
                f"it has {', '.join(sorted(metrics)) or 'none'}"
            )
        score = float(metrics[tuning.metric])
        if not math.isnan(score):
            scores.append((score, candidate))
    if not scores:
        raise UserError(f"{run.name}: all {len(run.candidates)} candidates of its tuning failed")
    choose = max if tuning.direction == "max" else min
    score, best = choose(scores, key=lambda pair: pair[0])
    note = f"{best.label}, the best of {len(run.candidates)} by {tuning.metric} ({score:.4g})"
    num_failed = len(run.candidates) - len(scores)
    return best, note + (f"; {num_failed} of them failed" if num_failed else "")


def _value_text(value: object) -> str:
    if isinstance(value, dict) and "class_path" in value:
        arguments = [f"{k}={_value_text(v)}" for k, v in (value.get("init_args") or {}).items()]
        inside = f"({','.join(arguments)})" if arguments else ""
        return str(value["class_path"]).rpartition(".")[2] + inside
    return f"{value:g}" if isinstance(value, float) else str(value)
