"""The state of a grid as a table: from files only, without torch."""

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rich.box import HEAVY_HEAD
from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style

from pretzel.ablation.ledger import RunFolder, State

_SILENT_SECONDS = 60.0
_COLUMNS = ("cell", "state", "step", "steps/s", "left", "last metrics")
_COLOURS = {
    State.DONE: "green",
    State.FAILED: "red",
    State.RUNNING: "cyan",
    State.STALE: "yellow",
    State.TRAINED: "yellow",
}


@dataclass(frozen=True, kw_only=True)
class StatusRow:
    """One line of the state table.

    Attributes:
        name: The cell.
        state: Where it stands.
        step: Its step, and of how many.
        left: Time until it is trained.
        note: Phase and last metrics; of one that failed the error.
        rate: Steps a second.
        seconds: Of work on it.
        seconds_left: Until it is trained; None where that is not known.
    """

    name: str
    state: State
    step: str
    left: str
    note: str
    rate: str = ""
    seconds: float = field(default=0.0, compare=False)
    seconds_left: float | None = field(default=None, compare=False)

    @classmethod
    def of(
        cls,
        name: str,
        folder: RunFolder,
        identity: str,
        evaluation: str | None,
        metrics: Sequence[str] = (),
    ) -> "StatusRow":
        """Read the state of a cell.

        Args:
            name: The cell's name.
            folder: Its folder.
            identity: The training that is asked for now.
            evaluation: How it is to be measured.
            metrics: The metrics to show first.
        """
        state = folder.state(identity, evaluation)
        left = step = note = rate = ""
        seconds, seconds_left = 0.0, None
        if state is State.DONE:  # most cells of a large grid: one file, and not this one's progress
            result = folder.result or {}
            step = f"{result.get('steps', '?')}/{result.get('steps', '?')}"
            note = _metrics(result.get("metrics", {}), metrics)
            seconds = float(result.get("seconds") or 0.0)
        elif state is not State.PENDING:
            progress = folder.progress
            seconds = float(progress.get("seconds") or 0.0)
            if progress.get("step") is not None:
                step = f"{progress['step']}/{progress.get('total') or '?'}"
            if state is State.FAILED:
                note = (folder.failure or {}).get("error", "").split("\n")[0]
            elif state is State.STALE:
                note = "finished with another configuration, code or data"
            elif state is State.TRAINED:
                note = "to be measured: pretzel grid evaluate"
            elif state is State.RUNNING:
                found = progress.get("metrics", {})
                note = (
                    f"{progress.get('phase', 'start')} {_metrics(found, _telling(found, metrics))}"
                )
                silent = time.time() - (progress.get("time") or math.inf)
                note += f" (no news for {duration(silent)})" if silent > _SILENT_SECONDS else ""
                rate = f"{progress['rate']:.3g}" if progress.get("rate") else ""
                if progress.get("phase") != "test" and progress.get("left") is not None:
                    seconds_left = float(progress["left"])
                    left = duration(seconds_left)
        return cls(
            name=name,
            state=state,
            step=step,
            left=left,
            note=note,
            rate=rate,
            seconds=seconds,
            seconds_left=seconds_left,
        )


@dataclass(frozen=True)
class StateTable:
    """Rows as a table for a rich console; rich's own takes a second for 1,000 rows.

    Attributes:
        rows: The rows.
        title: A line above.
        whole: Whether lines may be longer than the console is wide, for files and pipes.
        most: The most rows; those first that run or need the user, and those last that are done.
        left: Follows the numbers of cells below, for the time that is left.
    """

    rows: Sequence[StatusRow]
    title: str = ""
    whole: bool = False
    most: int | None = None
    left: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        box, rows = HEAVY_HEAD.substitute(options), self._shown()
        rates = slice(3, 3 if any(row.rate for row in rows) else 4)  # nothing, or a column
        head = [*_COLUMNS]
        del head[rates]
        cells = []
        for row in rows:
            cell = [row.name, row.state.value, row.step, row.rate, row.left, _printable(row.note)]
            del cell[rates]
            cells.append(cell)
        widths = [max(map(cell_len, column)) for column in zip(head, *cells, strict=True)]
        space = options.max_width - 3 * len(widths) - 1
        while not self.whole and sum(widths) > space and max(widths) > 1:
            widths[widths.index(max(widths))] -= 1  # what is longest can lose most
        framed = [width + 2 for width in widths]
        if self.title:
            yield Segment(f"{self.title}\n", Style(italic=True))
        yield Segment(f"{box.get_top(framed)}\n")
        bold = Style(bold=True)
        yield from _line(head, widths, box.head_left, box.head_vertical, [bold] * len(widths))
        yield Segment(f"{box.get_row(framed, 'head')}\n")
        colours = {state: Style(color=colour) for state, colour in _COLOURS.items()}
        for row, texts in zip(rows, cells, strict=True):
            styles = [None, colours.get(row.state), *[None] * (len(widths) - 2)]
            yield from _line(texts, widths, box.mid_left, box.mid_vertical, styles)
        yield Segment(f"{box.get_bottom(framed)}\n")
        yield Segment(f"{counts(self.rows)}{self.left}\n")

    def _shown(self) -> Sequence[StatusRow]:
        if self.most is None or len(self.rows) <= self.most:
            return self.rows
        later = {State.RUNNING: 0, State.PENDING: 2, State.DONE: 3}
        numbers = range(len(self.rows))
        first = sorted(numbers, key=lambda number: later.get(self.rows[number].state, 1))
        return [self.rows[number] for number in sorted(first[: self.most])]


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def _line(
    texts: Sequence[str],
    widths: Sequence[int],
    edge: str,
    between: str,
    styles: Sequence[Style | None],
) -> Iterable[Segment]:
    for index, (text, width, style) in enumerate(zip(texts, widths, styles, strict=True)):
        yield Segment(f"{between if index else edge} ")
        shown = text if cell_len(text) <= width else f"{set_cell_size(text, width - 1)}…"
        yield Segment(set_cell_size(shown, width), style)
        yield Segment(" ")
    yield Segment(f"{edge}\n")


def table(rows: Sequence[StatusRow], title: str = "") -> StateTable:
    """Return the rows as a table, for a rich console."""
    return StateTable(rows, title)


def counts(rows: Sequence[StatusRow]) -> str:
    """Return, for example, ``3 pending, 2 running, 5 done``."""
    found = Counter(row.state for row in rows)
    return ", ".join(f"{found[state]} {state.value}" for state in State if found[state])


def duration(seconds: float) -> str:
    """Return a time as ``45 s``, ``12 min`` or ``3.1 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _telling(found: Mapping[str, float], table: Sequence[str]) -> list[str]:
    """Return what tells how training goes: its loss, and the table's metrics in validation."""
    losses = [name for name in found if name.startswith("train") and "loss" in name]
    ends = [name.rpartition("/")[2] for name in table]
    validated = [name for name in found if name.startswith("val")]
    validated.sort(key=lambda name: (name.rpartition("/")[2] not in ends, "loss" not in name))
    return [*sorted(losses, key=len)[:1], *(n for n in table if n in found), *validated]


def _metrics(values: dict[str, float], first: Sequence[str], most: int = 4) -> str:
    names = [name for name in first if name in values]
    names = names or list(values)
    return " ".join(f"{name}={values[name]:.4g}" for name in names[:most])
