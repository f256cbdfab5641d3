"""What a grid shows while it runs, and its state as a table: from files only, without torch."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from pretzel.ablation.ledger import CellFolder, State

_PLAIN_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the state table."""

    name: str
    state: State
    step: str
    left: str
    note: str

    @classmethod
    def of(
        cls,
        name: str,
        folder: CellFolder,
        identity: str,
        evaluation: str | None,
        metrics: Sequence[str] = (),
    ) -> "Row":
        """Read the state of a cell.

        Args:
            name: The cell's name.
            folder: Its folder.
            identity: The training that is asked for now.
            evaluation: How it is to be measured.
            metrics: The metrics to show first.
        """
        state, progress = folder.state(identity, evaluation), folder.progress
        step, total = progress.get("step"), progress.get("total")
        left = ""
        if state is State.RUNNING and progress.get("left") is not None:
            left = duration(progress["left"])
        if state is State.DONE:
            result = folder.result or {}
            step = total = result.get("steps")
            note = _metrics(result.get("metrics", {}), metrics)
        elif state is State.FAILED:
            note = (folder.failure or {}).get("error", "").split("\n")[0]
        elif state is State.STALE:
            note = "finished with another configuration, code or data"
        elif state is State.TRAINED:
            note = "to be measured: pretzel grid evaluate"
        elif state is State.RUNNING:
            note = (
                f"{progress.get('phase', 'start')} {_metrics(progress.get('metrics', {}), metrics)}"
            )
        else:
            note = ""
        shown = "" if step is None or state is State.PENDING else f"{step}/{total or '?'}"
        return cls(name=name, state=state, step=shown, left=left, note=note)


def table(rows: Sequence[Row], title: str = "") -> Table:
    """Return the rows as a rich table."""
    made = Table(title=title or None, title_justify="left")
    for column in ("cell", "state", "step", "left", "last metrics"):
        made.add_column(column, no_wrap=True, overflow="ellipsis")
    colours = {
        State.DONE: "green",
        State.FAILED: "red",
        State.RUNNING: "cyan",
        State.STALE: "yellow",
        State.TRAINED: "yellow",
    }
    for row in rows:
        state = f"[{colours.get(row.state, 'default')}]{row.state.value}[/]"
        made.add_row(row.name, state, row.step, row.left, row.note)
    return made


class View:
    """A live table on a terminal; elsewhere a line at every event and every ten seconds.

    Args:
        output: The grid's folder.
    """

    def __init__(self, output: Path) -> None:
        self.console = Console(stderr=False)
        self.output, self.live, self.shown = output, None, time.monotonic()

    live: Live | None

    def say(self, line: str) -> None:
        """Print one event."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)
        sys.stdout.flush()

    def show(self, rows: Sequence[Row]) -> None:
        """Show the state of all cells."""
        if self.console.is_terminal:
            if self.live is None:
                self.live = Live(console=self.console, refresh_per_second=4, transient=True)
                self.live.start()
            self.live.update(table(rows, f"{self.output}"))
        elif time.monotonic() - self.shown >= _PLAIN_SECONDS:
            self.shown = time.monotonic()
            done = sum(row.state is State.DONE for row in rows)
            running = [row for row in rows if row.state is State.RUNNING]
            told = "; ".join(
                " ".join(part for part in (row.name, row.step, row.note.strip()) if part)
                + (f", {row.left} left" if row.left else "")
                for row in running
            )
            self.say(f"[{done}/{len(rows)} done] {told}")

    def close(self) -> None:
        """Give the terminal back."""
        if self.live is not None:
            self.live.stop()
            self.live = None


def duration(seconds: float) -> str:
    """Return a time as ``45 s``, ``12 min`` or ``3.1 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _metrics(values: dict[str, float], first: Sequence[str], most: int = 4) -> str:
    names = [name for name in first if name in values]
    names = names or list(values)
    return " ".join(f"{name}={values[name]:.4g}" for name in names[:most])
