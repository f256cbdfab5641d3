"""Progress of tools: a bar on a terminal, a line every few seconds elsewhere, on standard error."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

_LINE_SECONDS = 5.0

Advance = Callable[[int], None]
"""Tells how many more of the things are done."""


@contextmanager
def counting(what: str, total: int | None, begin: int = 0) -> Iterator[Advance]:
    """Yield a function that takes how many more are done.

    Args:
        what: The things that are counted, such as ``samples``.
        total: Their number, None if it is unknown.
        begin: How many are done already.
    """
    console = Console(stderr=True)
    done, last_line = begin, time.monotonic()
    columns = (SpinnerColumn(), TextColumn(what), BarColumn(), MofNCompleteColumn(),
               TimeRemainingColumn())  # fmt: skip

    def advance(count: int) -> None:
        nonlocal done, last_line
        done += count
        if console.is_terminal:
            bar.update(task, completed=done)
        elif time.monotonic() - last_line >= _LINE_SECONDS:
            last_line = time.monotonic()
            of = "" if total is None else f" of {total}"
            console.print(f"{done}{of} {what}", highlight=False)

    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=total, completed=begin)
        yield advance
