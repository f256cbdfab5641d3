"""Commands on the runs of a grid: run, rerun, evaluate, why, adopt, gc."""

import argparse
import shutil
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from pretzel.ablation.engines.base import Engine
from pretzel.ablation.execution.scheduler import Selection, execute
from pretzel.ablation.gridfile.grid import Grid
from pretzel.ablation.identity.differences import SNAPSHOTS, Differences, differences, patch
from pretzel.ablation.ledger import RunFolder, State
from pretzel.ablation.planning.plan import Plan, PlannedRun
from pretzel.errors import UserError, did_you_mean

_LEFTOVERS = ("last.ckpt", "previous.ckpt", "*.saving", "*.partial")


def planned(grid: Grid) -> Plan:
    """Parse all runs of a grid."""
    from pretzel.ablation.planning.grid_to_plan import plan_grid
    from pretzel.ablation.planning.progress import planning_progress

    with planning_progress() as progress:
        return plan_grid(grid, progress)


def run_grid(grid: Grid, args: argparse.Namespace, engine: Engine) -> int:
    """Train and measure what is not done; the engine prepares itself while the grid is planned."""
    plan, patterns = planned(grid), args.only or []
    for warning in plan.warnings:
        print(warning)
    selection = Selection(
        only=set(with_needs(plan, [run.name for run in named(plan, patterns)])) or None,
        retry=args.retry,
        fail_fast=args.fail_fast,
        again=_run_again(grid, patterns),
    )
    return execute(plan, engine, selection)


def rerun(grid: Grid, args: argparse.Namespace, engine: Engine) -> int:
    """Train named, stale or failed runs again, from the beginning; what they need is run too."""
    if not (args.runs or args.stale or args.failed):
        raise UserError("grid rerun: name runs, or add --stale or --failed")
    plan = planned(grid)
    is_chosen = {State.STALE: args.stale, State.FAILED: args.failed}
    again = {run.name for run in named(plan, args.runs)}
    again |= {run.name for run in plan.runs if is_chosen.get(plan.state(run))}
    if not again:
        print("nothing to run again")
    selection = Selection(
        only=set(with_needs(plan, again)),
        rerun=again,
        retry=args.retry,
        fail_fast=args.fail_fast,
        again=_run_again(grid, [] if args.stale or args.failed else args.runs),
    )
    return execute(plan, engine, selection)


def evaluate(grid: Grid, args: argparse.Namespace, engine: Engine) -> int:
    """Measure trained runs by the metrics that are asked for now; nothing is trained."""
    plan = planned(grid)
    stale = [run.name for run in plan.compared if plan.state(run) is State.STALE]
    if stale:
        print(f"not measured, since they were trained otherwise: {', '.join(stale)}")
    again = ["grid", "evaluate", str(grid.file)]
    selection = Selection(train=False, retry=args.retry, fail_fast=args.fail_fast, again=again)
    return execute(plan, engine, selection)


def why(grid: Grid, args: argparse.Namespace) -> int:
    """Tell what differs between what the grid wants now and what a run was trained with."""
    plan = planned(grid)
    for run in named(plan, args.runs):
        state, since = plan.state(run), _differences(plan, run)
        if since is None:
            print(f"{run.name}: {state.value}; it has never been started")
            continue
        differs = f"{'adopted although it ' if _is_adopted(plan, run) else ''}differs in:"
        print(f"{run.name}: {state.value}; " + (differs if since else "nothing differs"))
        for line in since.lines():
            print(f"  {line}")
        if args.patch:
            print("\n".join(patch(since, plan.grid.output, None)))
    return 0


def adopt(grid: Grid, args: argparse.Namespace) -> int:
    """Accept the results of runs as they are, and record what differs."""
    plan = planned(grid)
    for run in named(plan, args.runs):
        folder, state, since = plan.folder(run), plan.state(run), _differences(plan, run)
        if state not in (State.STALE, State.TRAINED) or since is None:
            print(f"{run.name}: {state.value}, nothing to adopt")
            continue
        changes = since.lines()
        folder.adopt(run.identity, run.evaluation, differences=changes, because=args.because)
        print(f"{run.name}: adopted in spite of {len(changes)} differences, recorded in")
        print(f"  {folder.path / 'adopted.json'}")
    return 0


def gc(grid: Grid, args: argparse.Namespace) -> int:
    """List what the grid no longer needs, or remove it."""
    plan = planned(grid)
    garbage = list(_garbage(plan))
    total = 0
    for path, reason in garbage:
        size = sum(f.stat().st_size for f in [path, *path.rglob("*")] if f.is_file())
        total += size
        print(f"{size / 1e6:9.1f} MB  {path}  ({reason})")
        if args.delete and path.is_dir():
            shutil.rmtree(path)
        elif args.delete:
            path.unlink()
    note = "removed" if args.delete else "could be removed: add --delete"
    print(f"{total / 1e6:9.1f} MB in {len(garbage)} files and folders {note}")
    return 0


def named(plan: Plan, patterns: Iterable[str]) -> list[PlannedRun]:
    """Return the runs of names or patterns such as ``stacked/*``; an arm's name means its runs.

    Raises:
        UserError: If one names no run.
    """
    named_runs: dict[PlannedRun, None] = {}
    for pattern in patterns:
        matches = [run for run in plan.runs if fnmatchcase(run.name, pattern)]
        matches += [run for run in plan.runs if run.name.startswith(f"{pattern}/")]
        if not matches:
            names = [name for run in plan.runs for name in (run.arm, run.name)]
            near = did_you_mean(pattern, names)
            raise UserError(f"{plan.grid.file}: no such run '{pattern}'{near}")
        named_runs |= dict.fromkeys(matches)
    return list(named_runs)


def _run_again(grid: Grid, patterns: Iterable[str]) -> list[str]:
    """Return the command that continues the runs of patterns; without any, all runs."""
    return ["grid", "run", str(grid.file), *(w for one in patterns for w in ("--only", one))]


def _differences(plan: Plan, run: PlannedRun) -> Differences | None:
    spec = plan.folder(run).spec
    return None if spec is None else differences(spec.get("fingerprint", {}), run.record)


def _is_adopted(plan: Plan, run: PlannedRun) -> bool:
    folder = plan.folder(run)
    result = folder.result or {}
    has = [result.get("identity"), result.get("evaluation")]
    return folder.acceptance(has, [run.identity, run.evaluation]) is not None


def with_needs(plan: Plan, names: Iterable[str]) -> Iterator[str]:
    """Yield names of runs and of all that they need."""
    needs = {run.name: run.needs for run in plan.runs}
    needed = list(names)
    for name in needed:  # grows while it is read
        yield name
        needed += [other for other in needs[name] if other not in needed]


def _garbage(plan: Plan) -> Iterator[tuple[Path, str]]:
    output = plan.grid.output
    planned_folders = {output / run.name for run in plan.runs}
    for spec in sorted(output.glob("**/run.json")):
        folder = RunFolder(path=spec.parent)
        if folder.locked():
            continue
        if folder.path not in planned_folders:
            yield folder.path, "no run of the grid"
        elif folder.result is not None:
            for pattern in _LEFTOVERS:
                yield from ((path, "the run is done") for path in folder.path.glob(pattern))
    used: set[str] = set()
    for path in planned_folders:
        record = (RunFolder(path=path).spec or {}).get("fingerprint", {})
        for modules in (record.get("modules", {}), record.get("measuring_modules", {})):
            used |= set(modules.values())
    for path in sorted((output / SNAPSHOTS).glob("*.py")):
        if path.stem not in used:
            yield path, "source of no run"
