"""``pretzel reproduce TABLE ROW``: run one row of a table again, elsewhere, and compare."""

import argparse
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pretzel.ablation.engines.base import Engine
from pretzel.ablation.execution.commands import named, planned, with_needs
from pretzel.ablation.execution.scheduler import Selection, folder_of, run
from pretzel.ablation.gridfile.reading import load
from pretzel.ablation.identity.differences import differences
from pretzel.ablation.ledger import RunFolder
from pretzel.ablation.planning.plan import Plan, PlannedRun
from pretzel.errors import UserError, did_you_mean
from pretzel.files.atomic import read_json


def reproduce(given: argparse.Namespace, engine: Engine) -> int:
    """Run the cells of a row again, with all that they need, and tell what came out otherwise.

    Args:
        given: ``table`` (a grid's output folder, or a report in it), ``row`` (an arm or a cell),
            ``out`` (another folder, None for one beside the grid's), ``retry``, ``fail_fast``.
        engine: Where cells run.

    Returns:
        0 if every cell ran and all metrics are bit-identical, 1 otherwise.

    Raises:
        UserError: If there is no such table or row, or nothing was finished there.
    """
    table: Path = given.table if given.table.is_dir() else given.table.parent
    written = read_json(table / "plan.json")
    if written is None:
        raise UserError(f"{given.table}: no table of a grid; name its output folder")
    if given.row not in written["arms"] and not (table / given.row / "result.json").is_file():
        near = did_you_mean(given.row, written["arms"])
        raise UserError(f"{table}: no such row '{given.row}'{near}")
    out = given.out or table.with_name(f"{table.name}-reproduced")
    if out.resolve() == table.resolve():
        raise UserError(f"--out must be another folder than the table's, got {out}")
    plan = planned(replace(load(written["grid"]), output=out))
    cells = [cell for cell in named(plan, [given.row]) if cell.seed is not None]
    for line in _beforehand(table, cells):
        print(line)
    only = set(with_needs(plan, [cell.name for cell in cells]))
    choice = Selection(only=only, retry=given.retry, fail_fast=given.fail_fast)
    code = run(plan, engine, choice)
    same = [_same(table, plan, cell) for cell in cells]
    return int(bool(code) or not all(same))


def _beforehand(table: Path, cells: list[PlannedRun]) -> Iterator[str]:
    for cell in cells:
        spec = RunFolder(path=table / cell.name).spec or {}
        found = differences(spec.get("fingerprint", {}), cell.record)
        if found:
            yield f"{cell.name}: today's differs from what was run in:"
            yield from (f"  {line}" for line in found.lines())


def _same(table: Path, plan: Plan, cell: PlannedRun) -> bool:
    """Print how the metrics of a cell compare; return whether all are bit-identical."""
    old = _metrics(RunFolder(path=table / cell.name))
    new = _metrics(folder_of(plan, cell))
    shown = [metric.name for metric in plan.grid.metrics]
    different = [name for name in old.keys() & new.keys() if not _equal(old[name], new[name])]
    different += old.keys() ^ new.keys()
    if old and not different:
        print(f"{cell.name}: all {len(old)} metrics are the same to the last bit")
        return True
    print(f"{cell.name}: {len(different)} of {len(old.keys() | new.keys())} metrics differ:")
    for name in sorted(different, key=lambda name: (name not in shown, name)):
        print(f"  {name}: {_told(old.get(name))} -> {_told(new.get(name))}")
    return False


def _metrics(folder: RunFolder) -> dict[str, Any]:
    """Return the metrics that a machine's speed does not change."""
    metrics = (folder.result or {}).get("metrics", {})
    return {name: value for name, value in metrics.items() if "seconds" not in name}


def _equal(old: float, new: float) -> bool:
    return old == new or (math.isnan(old) and math.isnan(new))


def _told(value: float | None) -> str:
    return "none" if value is None else f"{value:.9g}"
