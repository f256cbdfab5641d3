"""The state of a grid as a table: from files only, without torch."""

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.box import HEAVY_HEAD
from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style

from pretzel.ablation.identity.changed_code import changed_runs
from pretzel.ablation.ledger import RunFolder, State
from pretzel.ablation.twins import Traces, twin_sentences

_SILENT_SECONDS = 60.0
_COLOURS = {
    State.DONE: "green",
    State.FAILED: "red",
    State.RUNNING: "cyan",
    State.STALE: "yellow",
    State.TRAINED: "yellow",
}
_NOTES = {
    State.STALE: "finished with another configuration, code or data",
    State.TRAINED: "to be measured: pretzel grid evaluate",
}


@dataclass(frozen=True, kw_only=True)
class StatusRow:
    """One line of the state table: a run."""

    name: str
    state: State
    step: str = ""  # and of how many
    note: str = ""  # phase and last metrics; of one that failed the error
    rate: str = ""  # steps a second
    seconds: float = field(default=0.0, compare=False)  # that it has taken so far
    seconds_left: float | None = field(default=None, compare=False)  # until it is trained, if known
    traces: Traces = field(default_factory=Traces, compare=False)

    @property
    def left(self) -> str:
        """Time until it is trained, for people; empty when it is, though it is still tested."""
        return duration(self.seconds_left) if self.seconds_left else ""

    @classmethod
    def of(
        cls,
        name: str,
        folder: RunFolder,
        identity: str,
        evaluation: str | None,
        metrics: Sequence[str] = (),
    ) -> "StatusRow":
        """Read the state of a run.

        Args:
            name: The run's name.
            folder: Its folder.
            identity: The training that is asked for now.
            evaluation: How it is to be measured.
            metrics: The metrics to show first.
        """
        state, fault = folder.state(identity, evaluation), folder.result_fault
        if state is State.PENDING:
            return cls(name=name, state=state, note=fault)
        if state is State.DONE:  # most runs of a large grid: one file, and not that of progress
            result = folder.result or {}
            steps, logged = result.get("steps", "?"), result.get("metrics", {})
            values = _metrics_text(logged, metrics)
            return cls(
                name=name,
                state=state,
                step=f"{steps}/{steps}",
                note=f"{values} ({fault})" if fault else values,
                seconds=float(result.get("seconds") or 0.0),
                traces=Traces.of(result),
            )
        progress, note, rate, left = folder.progress, _NOTES.get(state, ""), None, None
        if state is State.FAILED:
            note = (folder.failure or {}).get("error", "").split("\n")[0]
        elif state is State.RUNNING:
            rate, left = progress.get("rate"), progress.get("left")
            note = _running_note(progress, metrics)
        note = "; ".join(part for part in (note, fault) if part)
        has_step = progress.get("step") is not None
        return cls(
            name=name,
            state=state,
            step=f"{progress['step']}/{progress.get('total') or '?'}" if has_step else "",
            note=note,
            rate=f"{rate:.3g}" if rate else "",
            seconds=float(progress.get("seconds") or 0.0),
            seconds_left=left,
            traces=Traces.read(folder, state, identity),
        )

    @classmethod
    def of_plan(cls, output: Path, plan: Mapping[str, Any]) -> list["StatusRow"]:
        """Read the states of all runs of a grid's folder with that ``plan.json``.

        What was finished before its code changed is stale, or to be measured again.
        """
        metrics, rows = [*plan["metrics"]], []
        trained_by_other, measured_by_other = changed_runs(plan, output)
        for run in plan["runs"]:
            folder = RunFolder(path=output / run["name"])
            identity, evaluation = run["identity"], run.get("evaluation")
            row = cls.of(run["name"], folder, identity, evaluation, metrics)
            state = row.state
            if state in (State.DONE, State.TRAINED) and row.name in trained_by_other:
                state = State.STALE
            elif state is State.DONE and row.name in measured_by_other:
                state = State.TRAINED
            if state is not row.state:
                row = replace(row, state=state, note=_NOTES[state], traces=Traces())
            rows.append(row)
        return rows


def twins(plan: Mapping[str, Any], rows: Iterable[StatusRow]) -> list[str]:
    """Return which runs of a plan train or measure the same thing, by the rows of its table."""
    return twin_sentences(plan, {row.name: row.traces for row in rows})


def plan_title(output: Path, plan: Mapping[str, Any]) -> str:
    """Return the title of a plan's table: its folder and how many runs it has."""
    candidates = {name for run in plan["runs"] for name in run.get("candidates") or {}}
    title = f"{output}: {len(plan['runs'])} runs"
    return f"{title}, {len(candidates)} of them candidate runs" if candidates else title


@dataclass(frozen=True)
class StateTable:
    """Rows as a table for a rich console; rich's own takes a second for 1,000 rows.

    Of too many rows, those are shown first that run or need the user, and those last that are done.
    """

    rows: Sequence[StatusRow]
    title: str = ""  # a line above
    whole: bool = False  # whether lines may be longer than the console is wide, for files and pipes
    most: int | None = None  # rows
    left: str = ""  # follows the numbers of runs below, for the time that is left
    remarks: Sequence[str] = ()  # lines below

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        box, rows = HEAVY_HEAD.substitute(options), self._visible_rows()
        columns = {
            "run": [row.name for row in rows],
            "state": [row.state.value for row in rows],
            "step": [row.step for row in rows],
            "steps/s": [row.rate for row in rows],
            "left": [row.left for row in rows],
            "last metrics": [_printable(row.note) for row in rows],
        }
        if not any(columns["steps/s"]):
            del columns["steps/s"]
        widths = [max(map(cell_len, (head, *texts))) for head, texts in columns.items()]
        space = options.max_width - 3 * len(widths) - 1
        while not self.whole and sum(widths) > space and max(widths) > 1:
            widths[widths.index(max(widths))] -= 1  # what is longest can lose most
        frame = [width + 2 for width in widths]
        if self.title:
            yield Segment(f"{self.title}\n", Style(italic=True))
        yield Segment(f"{box.get_top(frame)}\n")
        bold = [Style(bold=True)] * len(widths)
        yield from _line([*columns], widths, box.head_left, box.head_vertical, bold)
        yield Segment(f"{box.get_row(frame, 'head')}\n")
        colours = {state: Style(color=colour) for state, colour in _COLOURS.items()}
        for row, *texts in zip(rows, *columns.values(), strict=True):
            styles = [None, colours.get(row.state), *[None] * (len(widths) - 2)]
            yield from _line(texts, widths, box.mid_left, box.mid_vertical, styles)
        yield Segment(f"{box.get_bottom(frame)}\n")
        yield Segment(f"{counts(self.rows)}{self.left}\n")
        for remark in self.remarks:
            yield Segment(f"{_printable(remark)}\n", Style(color="yellow"))

    def _visible_rows(self) -> Sequence[StatusRow]:
        if self.most is None or len(self.rows) <= self.most:
            return self.rows
        later = {State.RUNNING: 0, State.PENDING: 2, State.DONE: 3}
        numbers = range(len(self.rows))
        first = sorted(numbers, key=lambda number: later.get(self.rows[number].state, 1))
        return [self.rows[number] for number in sorted(first[: self.most])]


def _printable(text: str) -> str:
    # errors come from anywhere: nothing in them may move the cursor of a terminal
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def _line(
    texts: Sequence[str],
    widths: Sequence[int],
    edge: str,
    divider: str,
    styles: Sequence[Style | None],
) -> Iterable[Segment]:
    for index, (text, width, style) in enumerate(zip(texts, widths, styles, strict=True)):
        yield Segment(f"{divider if index else edge} ")
        cut = text if cell_len(text) <= width else f"{set_cell_size(text, width - 1)}…"
        yield Segment(set_cell_size(cut, width), style)
        yield Segment(" ")
    yield Segment(f"{edge}\n")


def counts(rows: Sequence[StatusRow]) -> str:
    """Return, for example, ``3 pending, 2 running, 5 done``."""
    numbers = Counter(row.state for row in rows)
    return ", ".join(f"{numbers[state]} {state.value}" for state in State if numbers[state])


def duration(seconds: float) -> str:
    """Return a time as ``45 s``, ``12 min`` or ``3.1 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _running_note(progress: Mapping[str, Any], table: Sequence[str]) -> str:
    """Return the phase of a run, and metrics that tell how it goes: loss, table's in validation."""
    logged = progress.get("metrics", {})
    losses = [name for name in logged if name.startswith("train") and "loss" in name]
    ends = [name.rpartition("/")[2] for name in table]
    validated = [name for name in logged if name.startswith("val")]
    validated.sort(key=lambda name: (name.rpartition("/")[2] not in ends, "loss" not in name))
    first = [*sorted(losses, key=len)[:1], *(n for n in table if n in logged), *validated]
    note = f"{progress.get('phase', 'start')} {_metrics_text(logged, first)}"
    silent = time.time() - (progress.get("time") or math.inf)
    return note + (f" (no news for {duration(silent)})" if silent > _SILENT_SECONDS else "")


def _metrics_text(values: Mapping[str, float], first: Sequence[str], most: int = 4) -> str:
    names = [name for name in first if name in values] or list(values)
    return " ".join(f"{name}={values[name]:.4g}" for name in names[:most])
