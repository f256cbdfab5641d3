"""Progress of planning a large grid: a bar on a terminal, a line every few seconds elsewhere.

On standard error, so that what a command prints can be read by programs.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from pretzel.ablation.planning.grid_to_plan import Progress

_LINE_SECONDS = 5.0


@contextmanager
def planning_progress(console: Console | None = None) -> Iterator[Progress]:
    """Yield the function that ``plan_grid`` reports to; by default it writes on standard error."""
    console = console or Console(stderr=True)
    columns = (TextColumn("parsing arms"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    last_line = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last_line
        if console.is_terminal:
            bar.update(task, completed=done, total=total)
        elif time.monotonic() - last_line >= _LINE_SECONDS:
            last_line = time.monotonic()
            console.print(f"parsed {done} of {total} arms", highlight=False)

    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("")
        yield progress
