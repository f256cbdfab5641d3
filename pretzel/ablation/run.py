"""Run the cells of a plan: each in a fresh process, several at a time, until all are done."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType

from pretzel.ablation.cell import DONE, INTERRUPTED, TAKEN
from pretzel.ablation.ledger import CellFolder, State, write_json
from pretzel.ablation.plan import Cell, Plan
from pretzel.ablation.view import Row, View
from pretzel.errors import UserError

_POLL_SECONDS = 0.2
_PATIENCE_SECONDS = 60  # for cells to save and stop after Ctrl-C


def folder_of(plan: Plan, cell: Cell) -> CellFolder:
    """Return the folder of a cell."""
    return CellFolder(path=plan.grid.output / cell.name)


def run(plan: Plan, *, slots: int, rerun_stale: bool) -> int:
    """Run what is not done; keep going when a cell fails.

    Args:
        plan: The parsed grid.
        slots: Cells at a time.
        rerun_stale: Whether finished cells whose configuration has changed are run again.

    Returns:
        0 if every cell is done, 1 if some failed.

    Raises:
        UserError: If finished cells are stale and may not be rerun, or the folder is not writable.
        KeyboardInterrupt: After the cells have saved and stopped.
    """
    stale = [c for c in plan.runs if folder_of(plan, c).state(c.identity) is State.STALE]
    if stale and not rerun_stale:
        names = ", ".join(cell.name for cell in stale)
        raise UserError(
            f"{plan.grid.output}: finished with another configuration: {names}; "
            "change the configuration back, give another `output`, or add --rerun-stale"
        )
    plan.save()
    for cell in stale:
        folder_of(plan, cell).clear()
    view = View(plan.grid.output)
    with _signals() as stop:
        return int(bool(_Runs(plan, slots, view, stop).run()))


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
    slots: int
    view: View
    stop: _Stop
    processes: dict[Cell, subprocess.Popen[bytes]] = field(default_factory=dict)
    failed: list[Cell] = field(default_factory=list)
    done: set[str] = field(default_factory=set)
    retried: set[Cell] = field(default_factory=set)

    def run(self) -> list[Cell]:
        """Run until every cell is done or failed; return the failed ones."""
        todo = []
        for cell in self.plan.runs:
            if self.state(cell) is State.DONE:
                self.done.add(cell.name)
                self.view.say(f"{cell.name}: done before, skipped")
            else:
                todo.append(cell)
        self.retried = {cell for cell in todo if self.state(cell) is State.FAILED}
        try:
            while todo or self.processes:
                if self.stop.asked:
                    self.end()
                    raise KeyboardInterrupt(
                        f"stopped; to continue: pretzel grid run {self.plan.grid.file}"
                    )
                todo = self.start(todo)
                todo += self.collect()
                self.view.show(self.rows())
                time.sleep(_POLL_SECONDS)
        finally:
            self.view.close()
            for process in self.processes.values():
                process.kill()
                process.wait()
        return self.failed

    def start(self, todo: list[Cell]) -> list[Cell]:
        """Fill the free slots; return the cells still to start."""
        waiting = []
        for cell in todo:
            broken = [other.name for other in self.failed if other.name in cell.needs]
            if broken:
                self.view.say(f"{cell.name}: not run, {broken[0]} failed")
                self.failed.append(cell)
                continue
            if not self.done.issuperset(cell.needs):
                waiting.append(cell)
                continue
            folder = folder_of(self.plan, cell)
            state = self.state(cell)
            if state is State.DONE:  # by another runner
                self.done.add(cell.name)
                self.view.say(f"{cell.name}: done by another runner")
            elif state is State.FAILED and cell not in self.retried:
                self.told_failed(cell, folder, "FAILED under another runner")
            elif state is State.RUNNING or len(self.processes) >= self.slots:
                waiting.append(cell)
            else:
                self.spawn(cell, folder)
        return waiting

    def spawn(self, cell: Cell, folder: CellFolder) -> None:
        self.retried.discard(cell)
        folder.prepare(
            {
                "name": cell.name,
                "identity": cell.identity,
                "export": cell.export,
                "checkpoint_seconds": self.plan.grid.checkpoint_seconds,
                "config": cell.config,
            }
        )
        continued = folder.progress.get("step")
        self.view.say(
            f"{cell.name}: " + (f"continues from step {continued}" if continued else "starts")
        )
        with (folder.path / "log.txt").open("ab") as log:
            self.processes[cell] = subprocess.Popen(
                [sys.executable, "-m", "pretzel.ablation.cell", str(folder.path)],
                stdin=subprocess.PIPE,  # its end tells the cell that we are gone
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
                start_new_session=True,  # Ctrl-C reaches the cells through us, once
            )

    def collect(self) -> list[Cell]:
        """Take note of the processes that have ended; return the cells to try again."""
        again = []
        for cell, process in list(self.processes.items()):
            code = process.poll()
            if code is None:
                continue
            del self.processes[cell]
            if process.stdin is not None:
                process.stdin.close()
            folder = folder_of(self.plan, cell)
            if code == TAKEN:
                again.append(cell)
            elif code == DONE:
                self.done.add(cell.name)
                seconds = (folder.result or {}).get("seconds", 0.0)
                self.view.say(f"{cell.name}: done in {seconds:.0f} s")
            else:
                self.fail(cell, folder, code)
        return again

    def fail(self, cell: Cell, folder: CellFolder, code: int) -> None:
        if folder.failure is None and code != INTERRUPTED:  # killed from outside
            log = (folder.path / "log.txt").read_text(errors="replace").splitlines()[-30:]
            reason = f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
            write_json(folder.path / "failure.json", {"error": reason, "traceback": "", "log": log})
        self.told_failed(cell, folder, "FAILED")

    def told_failed(self, cell: Cell, folder: CellFolder, how: str) -> None:
        error = str((folder.failure or {}).get("error", "interrupted")).split("\n")[0]
        self.view.say(f"{cell.name}: {how}: {error} (see {folder.path}/failure.json)")
        self.failed.append(cell)

    def end(self) -> None:
        """Ask the cells to save and stop; kill those that do not, or on a second Ctrl-C."""
        self.view.say("stopping: the cells save a checkpoint (Ctrl-C again: at once)")
        for process in self.processes.values():
            process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while any(process.poll() is None for process in self.processes.values()):
            if self.stop.asked > 1 or time.monotonic() > deadline:
                break
            time.sleep(_POLL_SECONDS)

    def state(self, cell: Cell) -> State:
        return folder_of(self.plan, cell).state(cell.identity)

    def rows(self) -> list[Row]:
        names = [metric.name for metric in self.plan.grid.metrics]
        return [
            Row.of(cell.name, folder_of(self.plan, cell), cell.identity, names)
            for cell in self.plan.runs
        ]
