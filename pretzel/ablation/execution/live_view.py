"""Progress of a grid while it runs: a live table on a terminal, lines elsewhere."""

import contextlib
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.live import Live

from pretzel.ablation.ledger import State
from pretzel.ablation.status_table import StateTable, StatusRow, counts, duration

_TABLE_SECONDS = 0.5
_FIRST_SECONDS, _LAST_SECONDS = 10.0, 60.0
"""Between the first lines and between later ones, for a short grid as for one of a weekend."""
_NUM_FRAME_LINES = 6
"""Lines of the live table that are no rows."""
_MAX_LINES = 16
_UNFINISHED = (State.RUNNING, State.PENDING, State.INTERRUPTED)


class LiveView:
    """Shows how far a grid is, and prints what happens in it, by default on standard output."""

    def __init__(self, output: Path, console: Console | None = None) -> None:
        self.output, self.console = output, console or Console()
        self.live: Live | None = None
        self.last_shown, self.pause = time.monotonic(), _FIRST_SECONDS

    def say(self, line: str) -> None:
        """Print one event."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)
        sys.stdout.flush()

    def show(self, read: Callable[[], Sequence[StatusRow]]) -> None:
        """Show the state of all runs when it is time to; only then they are read."""
        passed = time.monotonic() - self.last_shown
        if not self.console.is_terminal:
            if passed >= self.pause:
                self.pause = min(2 * self.pause, _LAST_SECONDS)
                for line in lines(read()):
                    self.say(line)
                self.last_shown = time.monotonic()
        elif self.live is None or passed >= _TABLE_SECONDS:
            rows = read()
            if self.live is None:
                self.live = Live(console=self.console, refresh_per_second=4, transient=True)
                self.live.start()
            most = max(self.console.height - _NUM_FRAME_LINES, 1)
            self.live.update(StateTable(rows, f"{self.output}", most=most, left=left(rows)))
            self.last_shown = time.monotonic()

    def close(self) -> None:
        """Give the terminal back."""
        if self.live is not None:
            self.live.stop()
            self.live = None


def lines(rows: Sequence[StatusRow]) -> list[str]:
    """Return how far a grid is, as a line, and one for each run that is running."""
    running = [row for row in rows if row.state is State.RUNNING]
    report = [f"[{counts(rows)}{left(rows)}]"]
    for row in running[:_MAX_LINES]:
        rate = f"{row.rate} steps/s" if row.rate else ""
        until = f"{row.left} left" if row.left else ""
        figures = [part for part in (row.step, rate, until, row.note.strip()) if part]
        report.append(f"  {row.name}: {', '.join(figures)}")
    if len(running) > _MAX_LINES:
        report.append(f"  and {len(running) - _MAX_LINES} more")
    return report


def follow(
    output: Path,
    read: Callable[[], list[StatusRow]],
    remarks: Callable[[Sequence[StatusRow]], Sequence[str]],
    console: Console | None = None,
) -> None:
    """Show the state of all runs until nothing is left to run, or the user has seen enough.

    What there is to remark on the rows is printed once, as soon as it is known.
    """
    view, told = LiveView(output, console), set[str]()
    with contextlib.suppress(KeyboardInterrupt):
        rows = read()
        while any(row.state in _UNFINISHED for row in rows):
            view.show(rows.copy)
            for remark in remarks(rows):
                if remark not in told:
                    told.add(remark)
                    view.say(remark)
            time.sleep(_TABLE_SECONDS)
            rows = read()
    view.close()


def left(rows: Sequence[StatusRow]) -> str:
    """Return the time that a grid still takes, for the end of a line.

    Empty where that is unknown (tests take longer than those before), and where nothing runs:
    nobody knows how many will at a time.
    """
    is_running = any(row.state is State.RUNNING for row in rows)
    seconds = seconds_left(rows) if is_running else None
    return f"; about {duration(seconds)} left" if seconds else ""


def seconds_left(rows: Sequence[StatusRow]) -> float | None:
    """Return the seconds that a grid still takes, with as many runs at a time as now.

    From the files alone; :func:`pretzel.ablation.planning.time_estimate.estimate_time` knows the
    plan. A run takes as long as those of its kind that are done, or else as those that are running
    will have taken, but not less than it says itself; one of an unknown kind as long as any. None
    where nothing tells how long a run takes, or nothing is left.
    """
    known: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.state is State.DONE and row.seconds:
            known[_kind(row)].append(row.seconds)
    done = set(known)
    for row in rows:
        if row.state is State.RUNNING and row.seconds_left is not None and _kind(row) not in done:
            known[_kind(row)].append(row.seconds + row.seconds_left)
    todo = [row for row in rows if row.state in _UNFINISHED]
    if not (known and todo):
        return None
    any_kind = fmean(seconds for times in known.values() for seconds in times)
    likely = {kind: fmean(times) for kind, times in known.items()}
    remaining = [
        max(likely.get(_kind(row), any_kind) - row.seconds, row.seconds_left or 0.0) for row in todo
    ]
    at_a_time = max(sum(row.state is State.RUNNING for row in rows), 1)
    return max(sum(remaining) / at_a_time, *remaining)


def _kind(row: StatusRow) -> str:
    """Return the kind of a run: one that is compared, a stage (each takes its time), a trial."""
    first, _, name = row.name.partition("/")
    return {"stages": name.partition("-seed")[0], "tuning": first}.get(first, "run")
