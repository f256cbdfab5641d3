"""``pretzel diff A B``: two runs, or two arms, side by side."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from pretzel.ablation.identity.differences import differences, patch
from pretzel.ablation.ledger import RunFolder
from pretzel.errors import UserError


def diff(first: Path, second: Path, *, whole_patch: bool) -> str:
    """Return what differs between two runs or arms: configuration, code, versions, metrics.

    Their folders may be of one grid or of two. Source code may be shown as a patch.

    Raises:
        UserError: If there are no runs in one of them.
    """
    old, new = _runs(first), _runs(second)
    changes = differences(_fingerprint(old[0]), _fingerprint(new[0]))
    parts = {
        "configuration": [line for line in changes.config if "seed:" not in line],
        "data": changes.data,
        "versions": changes.versions,
        "code": changes.code,
        "metrics": _metric_changes(_mean_metrics(old), _mean_metrics(new)),
    }
    lines = [f"--- {first} ({_finished(old)})", f"+++ {second} ({_finished(new)})", ""]
    for name, of_part in parts.items():
        lines += [f"{name}:", *(f"  {line}" for line in of_part or ["no difference"])]
    if whole_patch:
        lines += ["", *patch(changes, _grid_folder(first), _grid_folder(second))]
    return "\n".join(lines)


def _runs(folder: Path) -> list[RunFolder]:
    """Return the run of a folder, or the runs of an arm's folder by seed."""
    if (folder / "run.json").is_file():
        return [RunFolder(path=folder)]
    runs = [RunFolder(path=spec.parent) for spec in sorted(folder.glob("*/run.json"))]
    if not runs:
        raise UserError(
            f"{folder}: no run there; name the folder of a run (runs/GRID/ARM/seed0) or of an "
            "arm (runs/GRID/ARM)"
        )
    return runs


def _fingerprint(run: RunFolder) -> dict[str, Any]:
    return dict((run.spec or {}).get("fingerprint", {}))


def _grid_folder(folder: Path) -> Path:
    """Return the output folder of a run's grid, where sources are kept."""
    above = (folder, *folder.resolve().parents)
    return next((up for up in above if (up / "plan.json").is_file()), folder)


def _finished(runs: Sequence[RunFolder]) -> str:
    return f"{sum(run.result is not None for run in runs)} of {len(runs)} runs finished"


def _mean_metrics(runs: Sequence[RunFolder]) -> dict[str, float]:
    """Return the mean of each metric over the runs that have it."""
    values: dict[str, list[float]] = {}
    for run in runs:
        for name, value in (run.result or {}).get("metrics", {}).items():
            values.setdefault(name, []).append(value)
    return {name: fmean(of_runs) for name, of_runs in values.items()}


def _metric_changes(old: dict[str, float], new: dict[str, float]) -> list[str]:
    lines = []
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) == new.get(name):
            continue
        texts = [f"{values[name]:.6g}" if name in values else "none" for values in (old, new)]
        by = f" ({new[name] - old[name]:+.3g})" if name in old and name in new else ""
        lines.append(f"{name}: {' -> '.join(texts)}{by}")
    return lines
