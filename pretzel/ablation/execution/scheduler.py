"""Run the cells of a plan on an engine, each when what it needs is done, until all are."""

import contextlib
import signal
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from pretzel.ablation.engines.base import Engine, StartedRun
from pretzel.ablation.execution.adopted_runs import adopted_training
from pretzel.ablation.execution.live_view import View
from pretzel.ablation.identity.differences import snapshot
from pretzel.ablation.ledger import RunFolder, State
from pretzel.ablation.planning.plan import Plan, PlannedRun
from pretzel.ablation.planning.tuning import best_candidate
from pretzel.ablation.status_table import StatusRow
from pretzel.ablation.worker.process import DONE, INTERRUPTED, TAKEN
from pretzel.errors import UserError
from pretzel.files.atomic import write_json

_POLL_SECONDS = 0.2
_PATIENCE_SECONDS = 60  # for cells to save and stop after Ctrl-C


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What is run, and what happens when a cell fails.

    Attributes:
        only: Names of the cells to run, and with them what they need; None for all.
        rerun: Names of cells to run again from the beginning, whatever their state.
        train: Whether cells are trained; otherwise those that are trained are measured.
        retry: How often a cell that fails is started again.
        fail_fast: Whether the first cell that fails for good stops the others.
    """

    only: Collection[str] | None = None
    rerun: Collection[str] = ()
    train: bool = True
    retry: int = 0
    fail_fast: bool = False


def run(plan: Plan, engine: Engine, choice: Selection) -> int:
    """Run what is not done.

    Args:
        plan: The parsed grid.
        engine: Where cells run.
        choice: Which ones, and what happens when one fails.

    Returns:
        0 if every chosen cell is done, 1 if some failed.

    Raises:
        UserError: If finished cells are stale and are not among those to run again, or the folder
            is not writable.
        KeyboardInterrupt: After the cells have saved and stopped.
    """
    chosen = [cell for cell in plan.runs if choice.only is None or cell.name in choice.only]
    if choice.train:
        _refuse_stale(plan, [cell for cell in chosen if cell.name not in choice.rerun])
    else:
        chosen = [c for c in chosen if plan.state(c) in (State.TRAINED, State.DONE)]
    plan.save()
    for cell in plan.runs:
        if cell.name in choice.rerun:
            with plan.folder(cell).lease() as mine:
                if not mine:
                    raise UserError(f"{cell.name}: is running; stop it first")
                plan.folder(cell).clear()
    view = View(plan.grid.output)
    with _signals() as stop:
        return int(bool(_Runs(plan, chosen, engine, choice, view, stop).run()))


def _refuse_stale(plan: Plan, cells: list[PlannedRun]) -> None:
    stale = [cell.name for cell in cells if plan.state(cell) is State.STALE]
    if stale:
        raise UserError(
            f"{plan.grid.output}: finished with another configuration, code or data: "
            f"{', '.join(stale)}; pretzel grid why {plan.grid.file} {stale[0]} tells what differs. "
            "Change it back, give another `output`, run them again (pretzel grid rerun "
            f"{plan.grid.file} --stale), or accept them (pretzel grid adopt {plan.grid.file} CELL)"
        )


@dataclass
class _Stop:
    """How often the user asked to stop."""

    asked: int = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.asked += 1


@contextlib.contextmanager
def _signals() -> Iterator[_Stop]:
    stop = _Stop()
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class _Runs:
    """All runs of a plan, each when those that it needs are done."""

    plan: Plan
    cells: list[PlannedRun]
    engine: Engine
    choice: Selection
    view: View
    stop: _Stop
    started: dict[PlannedRun, StartedRun] = field(default_factory=dict)
    failed: list[PlannedRun] = field(default_factory=list)
    done: set[str] = field(default_factory=set)
    retried: set[PlannedRun] = field(default_factory=set)
    tries: dict[PlannedRun, int] = field(default_factory=dict)

    def run(self) -> list[PlannedRun]:
        """Run until every cell is done or failed; return the failed ones."""
        todo = []
        for cell in self.cells:
            if self.plan.state(cell) is State.DONE:
                self.done.add(cell.name)
                self.view.say(f"{cell.name}: done before, skipped")
            else:
                todo.append(cell)
        # what was never chosen cannot be waited for
        self.done |= {cell.name for cell in self.plan.runs} - {cell.name for cell in self.cells}
        self.retried = {cell for cell in todo if self.plan.state(cell) is State.FAILED}
        try:
            while todo or self.started:
                if self.stop.asked:
                    self.end()
                    raise KeyboardInterrupt(
                        f"stopped; to continue: pretzel grid run {self.plan.grid.file}"
                    )
                if self.failed and self.choice.fail_fast:
                    self.view.say("--fail-fast: the other cells save a checkpoint and stop")
                    self.end()
                    break
                todo = self.start(todo)
                todo += self.collect()
                self.view.show(self.rows)
                time.sleep(_POLL_SECONDS)
        finally:
            self.view.close()
            for started in self.started.values():
                started.kill()
        return self.failed

    def start(self, todo: list[PlannedRun]) -> list[PlannedRun]:
        """Start what can be started; return the cells still to start."""
        waiting: list[PlannedRun] = []
        ready: list[PlannedRun] = []
        capacity = self.engine.capacity()
        for cell in todo:
            tried = {one.run for one in cell.candidates}  # of these, some may fail
            failed = {other.name for other in self.failed}
            broken = sorted(failed.intersection(cell.needs) - tried)
            if broken:
                self.view.say(f"{cell.name}: not run, {broken[0]} failed")
                self.failed.append(cell)
                continue
            if not (self.done | (failed & tried)).issuperset(cell.needs):
                waiting.append(cell)
                continue
            state = self.plan.state(cell)
            if state is State.DONE:  # by another runner
                self.done.add(cell.name)
                self.view.say(f"{cell.name}: done by another runner")
            elif state is State.FAILED and cell not in self.retried:
                self.told_failed(cell, self.plan.folder(cell), "FAILED under another runner")
            elif state is State.STALE:  # refused at the start, so it has come since then
                self.view.say(
                    f"{cell.name}: not run: another runner has finished it with another "
                    "configuration, code or data; give one of the two grids another `output`"
                )
                self.failed.append(cell)
            elif state is State.RUNNING or len(ready) >= capacity:
                waiting.append(cell)
            else:
                ready.append(cell)
        return waiting + self.launch(ready)

    def launch(self, cells: list[PlannedRun]) -> list[PlannedRun]:
        """Write down what to run, and hand it to the engine; return what another runner has."""
        taken: list[PlannedRun] = []
        launched: list[PlannedRun] = []
        for cell in cells:
            folder = self.plan.folder(cell)
            try:
                spec = self.spec(cell, folder)
            except UserError as error:
                self.view.say(f"{cell.name}: not run: {error}")
                self.failed.append(cell)
                continue
            with folder.lease() as mine:
                # between our look at the cell and now, another runner may have had it
                if not mine or not self.may_start(cell):
                    taken.append(cell)
                    continue
                folder.prepare(spec)
            snapshot(cell.record, self.plan.grid.output)
            if spec["tuned"]:
                self.view.say(f"{cell.name}: {spec['tuned']}")
            continued = folder.progress.get("step")
            self.view.say(
                f"{cell.name}: " + (f"continues from step {continued}" if continued else "starts")
            )
            self.retried.discard(cell)
            launched.append(cell)
        paths = [self.plan.folder(cell).path for cell in launched]
        if paths:
            self.started |= zip(launched, self.engine.start(paths), strict=True)
        return taken

    def may_start(self, cell: PlannedRun) -> bool:
        """Tell whether a cell that nobody runs is still to be run."""
        state = self.plan.folder(cell).state_of_rest(cell.identity, cell.evaluation)
        if state in (State.DONE, State.STALE):
            return False
        return state is not State.FAILED or cell in self.retried

    def spec(self, cell: PlannedRun, folder: RunFolder) -> dict[str, Any]:
        """Return what the cell's process is told.

        Raises:
            UserError: If nothing can be chosen for a tuned cell.
        """
        adopted = adopted_training(folder, cell)
        config, tuned = self.chosen(cell) if adopted is None else (cell.config, None)
        asked = {
            "name": cell.name,
            "identity": cell.identity,
            "evaluation": cell.evaluation,
            "export": cell.export,
            "tests": cell.tests,
            "checkpoint_seconds": self.plan.grid.checkpoint_seconds,
            "hang_seconds": self.plan.grid.hang_seconds,
            "config": config,
            "tuned": tuned,
            "fingerprint": cell.record,
        }
        return asked | (adopted or {})

    def chosen(self, cell: PlannedRun) -> tuple[dict[str, Any], str | None]:
        """Return the configuration of a cell, and how it was chosen where it was tuned."""
        if not cell.candidates:
            return cell.config, None
        output = self.plan.grid.output
        runs = {one.run: RunFolder(path=output / one.run).result for one in cell.candidates}
        best, note = best_candidate(cell, runs)
        return best.config, note

    def collect(self) -> list[PlannedRun]:
        """Take note of the cells that have ended; return those to start again."""
        again = []
        for cell, started in list(self.started.items()):
            code = started.poll()
            if code is None:
                continue
            del self.started[cell]
            folder = self.plan.folder(cell)
            if code == TAKEN:
                self.view.say(f"{cell.name}: another runner has it")
                again.append(cell)
            elif code == DONE:
                self.done.add(cell.name)
                seconds = (folder.result or {}).get("seconds", 0.0)
                found = f": {note}" if (note := self.row(cell).note) else ""
                self.view.say(f"{cell.name}: done in {seconds:.0f} s{found}")
            elif self.ended_badly(cell, folder, code):
                again.append(cell)
        return again

    def ended_badly(self, cell: PlannedRun, folder: RunFolder, code: int) -> bool:
        """Take note of a cell that failed; return whether it is started again."""
        if folder.failure is None and code != INTERRUPTED:  # killed from outside
            log = (folder.path / "log.txt").read_text(errors="replace").splitlines()[-30:]
            reason = f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
            told = {"error": reason, "traceback": "", "log": log}
            with contextlib.suppress(UserError):  # the disk may be what it failed of
                write_json(folder.path / "failure.json", told)
        tries = self.tries[cell] = self.tries.get(cell, 0) + 1
        if tries > self.choice.retry:
            self.told_failed(cell, folder, "FAILED")
            return False
        self.view.say(
            f"{cell.name}: failed ({_error(folder)}), started again: {tries} of {self.choice.retry}"
        )
        self.retried.add(cell)
        return True

    def told_failed(self, cell: PlannedRun, folder: RunFolder, how: str) -> None:
        self.view.say(f"{cell.name}: {how}: {_error(folder)} (see {folder.path}/failure.json)")
        self.failed.append(cell)

    def end(self) -> None:
        """Ask the cells to save and stop; kill those that do not, or on a second Ctrl-C."""
        self.view.say("stopping: the cells save a checkpoint (Ctrl-C again: at once)")
        for started in self.started.values():
            started.interrupt()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while any([started.poll() is None for started in self.started.values()]):
            if self.stop.asked > 1 or time.monotonic() > deadline:
                break
            time.sleep(_POLL_SECONDS)

    def rows(self) -> list[StatusRow]:
        return [self.row(cell) for cell in self.cells]

    def row(self, cell: PlannedRun) -> StatusRow:
        folder, names = self.plan.folder(cell), [m.name for m in self.plan.grid.metrics]
        return StatusRow.of(cell.name, folder, cell.identity, cell.evaluation, names)


def _error(folder: RunFolder) -> str:
    return str((folder.failure or {}).get("error", "interrupted")).split("\n")[0]
