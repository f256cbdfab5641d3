"""``pretzel reproduce TABLE ROW``: run one row of a table again, elsewhere, and compare."""

import math
from dataclasses import replace
from pathlib import Path

from pretzel.ablation.engines.base import Engine
from pretzel.ablation.execution.commands import named, planned, with_needs
from pretzel.ablation.execution.scheduler import Selection, execute
from pretzel.ablation.gridfile.reading import load
from pretzel.ablation.identity.differences import differences
from pretzel.ablation.ledger import RunFolder
from pretzel.ablation.plan_file import read_plan
from pretzel.ablation.planning.plan import Plan, PlannedRun
from pretzel.errors import UserError, did_you_mean


def reproduce(
    table: Path, row: str, out: Path | None, engine: Engine, *, retry: int, fail_fast: bool
) -> int:
    """Run the runs of a row again, with all that they need, and print what came out otherwise.

    The table is a grid's output folder or a report in it, the row an arm or one of its runs; they
    run in another folder, by default one beside the grid's.

    Returns:
        0 if every run ended and all metrics are bit-identical, 1 otherwise.

    Raises:
        UserError: If there is no such table or row, or nothing was finished there.
    """
    folder = table if table.is_dir() else table.parent
    written = read_plan(folder)
    if written is None:
        raise UserError(f"{table}: no table of a grid; name its output folder")
    if row not in written["arms"] and not (folder / row / "result.json").is_file():
        raise UserError(f"{folder}: no such row '{row}'{did_you_mean(row, written['arms'])}")
    out = out or folder.with_name(f"{folder.name}-reproduced")
    if out.resolve() == folder.resolve():
        raise UserError(f"--out must be another folder than the table's, got {out}")
    plan = planned(replace(load(written["grid"]), output=out))
    runs = [one for one in named(plan, [row]) if one.seed is not None]
    for one in runs:
        spec = RunFolder(path=folder / one.name).spec or {}
        if changes := differences(spec.get("fingerprint", {}), one.record):
            print(f"{one.name}: today's differs from what was run in:")
            print(*(f"  {line}" for line in changes.lines()), sep="\n")
    only = set(with_needs(plan, [one.name for one in runs]))
    again = ["reproduce", str(table), row, "--out", str(out)]
    selection = Selection(only=only, retry=retry, fail_fast=fail_fast, again=again)
    code = execute(plan, engine, selection)
    same = [_same(plan, one, RunFolder(path=folder / one.name)) for one in runs]
    return int(bool(code) or not all(same))


def _same(plan: Plan, run: PlannedRun, before: RunFolder) -> bool:
    """Print how the metrics of a run compare, those of the table first; tell if all are equal."""
    name, first = run.name, [metric.name for metric in plan.grid.metrics]
    old, new = _metrics(before), _metrics(plan.folder(run))
    if run.trained_by is not None:  # it has validated only where it trained itself
        old, new = ({k: v for k, v in m.items() if k.startswith("test")} for m in (old, new))
    differing = [key for key in old.keys() & new.keys() if not _equal(old[key], new[key])]
    differing += old.keys() ^ new.keys()
    if old and not differing:
        print(f"{name}: all {len(old)} metrics are the same to the last bit")
        return True
    print(f"{name}: {len(differing)} of {len(old.keys() | new.keys())} metrics differ:")
    for key in sorted(differing, key=lambda key: (key not in first, key)):
        values = ["none" if key not in run else f"{run[key]:.9g}" for run in (old, new)]
        print(f"  {key}: {' -> '.join(values)}")
    return False


def _metrics(folder: RunFolder) -> dict[str, float]:
    """Return the metrics that a machine's speed does not change."""
    metrics = (folder.result or {}).get("metrics", {})
    return {name: value for name, value in metrics.items() if "seconds" not in name}


def _equal(old: float, new: float) -> bool:
    return old == new or (math.isnan(old) and math.isnan(new))
