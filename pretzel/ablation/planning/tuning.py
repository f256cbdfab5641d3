"""A sweep inside an arm, on validation, before the comparison: no arm wins by its learning rate."""

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pretzel.ablation.gridfile.grid import Combination, Override
from pretzel.ablation.planning.plan import Choice, Plan, PlannedRun
from pretzel.errors import UserError, did_you_mean

_LONGEST = 60


def candidates(combination: Combination, link: str, last: str) -> list[tuple[Override, ...]]:
    """Return what the arms try in a link of the chain: all combinations of their values.

    Args:
        combination: The arms.
        link: The link.
        last: The last link, which keys without a link are for.

    Returns:
        The overrides of each candidate; one without any where nothing is tuned.
    """
    tuned = [one for _, arm in combination.arms for one in arm.tune if (one.link or last) == link]
    each = [[replace(one, value=value) for value in one.value] for one in tuned]
    return list(itertools.product(*each))


def tried_for(plan: Plan, arm: str) -> list[str]:
    """Return the names of the runs that try something for an arm, in its cells or before them."""
    runs = {cell.name: cell for cell in plan.runs}
    names = [cell.name for cell in plan.cells if cell.arm == arm]
    found: dict[str, None] = {}
    for name in names:  # grows while it is read
        tried = [candidate.run for candidate in runs[name].candidates]
        found |= dict.fromkeys(tried)
        names += [need for need in runs[name].needs if need not in names and need not in tried]
    return list(found)


def label(overrides: tuple[Override, ...]) -> str:
    """Return, for example, ``model.lr=0.01, model.size=3``."""
    return ", ".join(f"{one.key}={_told(one.value)}" for one in overrides)


def run_name(arm: str, overrides: tuple[Override, ...], mark: str) -> str:
    """Return the name, which is a folder, of the run that tries a candidate."""
    short = ",".join(f"{one.key.rpartition('.')[2]}={_told(one.value)}" for one in overrides)
    kept = re.sub(r"[^A-Za-z0-9._=,+-]+", "_", short)[:_LONGEST]
    return f"tuning/{arm}-{kept}-{mark[:8]}"


def chosen(cell: PlannedRun, results: Mapping[str, Mapping[str, Any] | None]) -> Choice:
    """Return what a tuned cell runs: the candidate that is best on validation.

    Args:
        cell: A cell with candidates.
        results: What :attr:`pretzel.ablation.ledger.RunFolder.result` holds, by the name of the
            run; None for one that failed, which has lost.

    Returns:
        The first of the best.

    Raises:
        UserError: If all candidates failed, or one has not logged the metric.
    """
    tuning = cell.tuning
    assert tuning is not None, "only tuned cells choose"
    scores: dict[str, float] = {}
    for candidate in cell.candidates:
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
        scores[candidate.run] = score if tuning.direction == "max" else -score
    able = [c for c in cell.candidates if not math.isnan(scores.get(c.run, math.nan))]
    if not able:
        raise UserError(f"{cell.name}: all {len(cell.candidates)} candidates of its tuning failed")
    best = max(able, key=lambda candidate: scores[candidate.run])
    score = scores[best.run] if tuning.direction == "max" else -scores[best.run]
    lost = len(cell.candidates) - len(able)
    note = f"{best.label}, the best of {len(cell.candidates)} by {tuning.metric} ({score:.4g})" + (
        f"; {lost} of them failed" if lost else ""
    )
    return Choice(run=best.run, label=best.label, config=best.config, note=note)


def _told(value: object) -> str:
    if isinstance(value, dict) and "class_path" in value:
        arguments = [f"{k}={_told(v)}" for k, v in (value.get("init_args") or {}).items()]
        inside = f"({','.join(arguments)})" if arguments else ""
        return str(value["class_path"]).rpartition(".")[2] + inside
    return f"{value:g}" if isinstance(value, float) else str(value)
