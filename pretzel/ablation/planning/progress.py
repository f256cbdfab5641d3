"""How far the planning of a large grid is: a bar on a terminal, a line every few seconds elsewhere.

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
def planning(console: Console | None = None) -> Iterator[Progress]:
    """Yield what :func:`pretzel.ablation.planning.grid_to_plan.plan_grid` tells its progress to.

    Args:
        console: Where it is shown; standard error if None.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (TextColumn("parsing arms"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("")
        yield lambda done, total: bar.update(task, completed=done, total=total)


class _Lines:
    def __init__(self, console: Console) -> None:
        self.console, self.shown = console, time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() - self.shown >= _LINE_SECONDS:
            self.shown = time.monotonic()
            self.console.print(f"parsed {done} of {total} arms", highlight=False)
