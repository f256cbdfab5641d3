"""What users do with a grid that has a plan: run, run again, measure, ask why, adopt, clean up."""

import argparse
import shutil
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from pretzel.ablation.engines.base import Engine
from pretzel.ablation.execution.scheduler import Selection, run
from pretzel.ablation.gridfile.grid import Grid
from pretzel.ablation.identity.differences import SNAPSHOTS, Differences, differences, patch
from pretzel.ablation.ledger import RunFolder, State
from pretzel.ablation.planning.plan import Plan, PlannedRun
from pretzel.errors import UserError, did_you_mean
from pretzel.files.atomic import read_json

_REMAINS = ("last.ckpt", "previous.ckpt", "*.saving", "*.partial", ".*.json.*")


def planned(grid: Grid) -> Plan:
    """Parse all cells of a grid."""
    from pretzel.ablation.planning.grid_to_plan import plan_grid
    from pretzel.ablation.planning.progress import planning_progress

    with planning_progress() as progress:
        return plan_grid(grid, progress)


def run_cells(grid: Grid, given: argparse.Namespace, engine: Engine) -> int:
    """Train and measure what is not done.

    Args:
        grid: The grid.
        given: ``only``, ``retry`` and ``fail_fast``.
        engine: Where cells run; it may prepare itself while the grid is planned.
    """
    plan = planned(grid)
    only = None
    if given.only:
        only = set(with_needs(plan, [cell.name for cell in named(plan, given.only)]))
    return run(plan, engine, Selection(only=only, retry=given.retry, fail_fast=given.fail_fast))


def rerun(grid: Grid, given: argparse.Namespace, engine: Engine) -> int:
    """Train named, stale or failed cells again, from the beginning; what they need is run too."""
    if not (given.cells or given.stale or given.failed):
        raise UserError("grid rerun: name cells, or add --stale or --failed")
    plan = planned(grid)
    wanted = {State.STALE: given.stale, State.FAILED: given.failed}
    again = {cell.name for cell in named(plan, given.cells)}
    again |= {cell.name for cell in plan.runs if wanted.get(plan.state(cell))}
    if not again:
        print("nothing to run again")
    only = set(with_needs(plan, again))
    selection = Selection(only=only, rerun=again, retry=given.retry, fail_fast=given.fail_fast)
    return run(plan, engine, selection)


def evaluate(grid: Grid, given: argparse.Namespace, engine: Engine) -> int:
    """Measure trained cells by the metrics that are asked for now; nothing is trained."""
    plan = planned(grid)
    stale = [cell.name for cell in plan.cells if plan.state(cell) is State.STALE]
    if stale:
        print(f"not measured, since they were trained otherwise: {', '.join(stale)}")
    selection = Selection(train=False, retry=given.retry, fail_fast=given.fail_fast)
    return run(plan, engine, selection)


def why(grid: Grid, given: argparse.Namespace) -> int:
    """Tell what differs between what is asked for now and what a cell was run with."""
    plan = planned(grid)
    for cell in named(plan, given.cells):
        state = plan.state(cell)
        found = _since(plan, cell)
        if found is None:
            print(f"{cell.name}: {state.value}; it has never been started")
            continue
        differs = f"{'adopted although it ' if _is_adopted(plan, cell) else ''}differs in:"
        print(f"{cell.name}: {state.value}; " + (differs if found else "nothing differs"))
        for line in found.lines():
            print(f"  {line}")
        if given.patch:
            print("\n".join(patch(found, plan.grid.output, None)))
    return 0


def adopt(grid: Grid, given: argparse.Namespace) -> int:
    """Accept the results of cells as they are, and record what differs."""
    plan = planned(grid)
    for cell in named(plan, given.cells):
        state, found = plan.state(cell), _since(plan, cell)
        if state not in (State.STALE, State.TRAINED) or found is None:
            print(f"{cell.name}: {state.value}, nothing to adopt")
            continue
        plan.folder(cell).adopt(
            cell.identity, cell.evaluation, differences=found.lines(), because=given.because
        )
        print(f"{cell.name}: adopted in spite of {len(found.lines())} differences, recorded in")
        print(f"  {plan.folder(cell).path / 'adopted.json'}")
    return 0


def gc(grid: Grid, given: argparse.Namespace) -> int:
    """List what the grid no longer needs, or remove it."""
    plan = planned(grid)
    garbage = list(_garbage(plan))
    total = 0
    for path, reason in garbage:
        size = sum(f.stat().st_size for f in [path, *path.rglob("*")] if f.is_file())
        total += size
        print(f"{size / 1e6:9.1f} MB  {path}  ({reason})")
        if given.delete and path.is_dir():
            shutil.rmtree(path)
        elif given.delete:
            path.unlink()
    told = "removed" if given.delete else "could be removed: add --delete"
    print(f"{total / 1e6:9.1f} MB in {len(garbage)} files and folders {told}")
    return 0


def named(plan: Plan, patterns: Iterable[str]) -> list[PlannedRun]:
    """Return the cells of names or patterns such as ``stacked/*``; an arm's name means its cells.

    Raises:
        UserError: If one names no cell.
    """
    found: dict[str, PlannedRun] = {}
    for pattern in patterns:
        met = [
            cell
            for cell in plan.runs
            if fnmatchcase(cell.name, pattern) or cell.name.startswith(f"{pattern}/")
        ]
        if not met:
            names = [name for cell in plan.runs for name in (cell.arm, cell.name)]
            near = did_you_mean(pattern, names)
            raise UserError(f"{plan.grid.file}: no such cell '{pattern}'{near}")
        found |= {cell.name: cell for cell in met}
    return list(found.values())


def _since(plan: Plan, cell: PlannedRun) -> Differences | None:
    spec = plan.folder(cell).spec
    return None if spec is None else differences(spec.get("fingerprint", {}), cell.record)


def _is_adopted(plan: Plan, cell: PlannedRun) -> bool:
    folder = plan.folder(cell)
    result = folder.result or {}
    has = [result.get("identity"), result.get("evaluation")]
    return folder.acceptance(has, [cell.identity, cell.evaluation]) is not None


def with_needs(plan: Plan, names: Iterable[str]) -> Iterator[str]:
    """Yield names of runs and of all that they need."""
    needs = {cell.name: cell.needs for cell in plan.runs}
    todo = list(names)
    for name in todo:  # grows while it is read
        yield name
        todo += [other for other in needs[name] if other not in todo]


def _garbage(plan: Plan) -> Iterator[tuple[Path, str]]:
    output = plan.grid.output
    wanted = {output / cell.name for cell in plan.runs}
    for spec in sorted(output.glob("**/cell.json")):
        folder = RunFolder(path=spec.parent)
        if folder.locked():
            continue
        if folder.path not in wanted:
            yield folder.path, "no cell of the grid"
        elif folder.result is not None:
            for pattern in _REMAINS:
                yield from ((path, "the cell is done") for path in folder.path.glob(pattern))
    used: set[str] = set()
    for cell in wanted:
        record = (read_json(cell / "cell.json") or {}).get("fingerprint", {})
        for modules in (record.get("modules", {}), record.get("measuring_modules", {})):
            used |= set(modules.values())
    for path in sorted((output / SNAPSHOTS).glob("*.py")):
        if path.stem not in used:
            yield path, "source of no run"
