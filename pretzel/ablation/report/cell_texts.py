"""Texts of the cells of a table, the same in every format."""

import itertools
import math
from collections.abc import Callable

from pretzel.ablation.report.statistics import Difference, SeedMean
from pretzel.ablation.report.table import (
    MISSING,
    NOT_APPLICABLE,
    ArmRow,
    Entry,
    MetricColumn,
    ResultTable,
)
from pretzel.ablation.status_table import duration

INCOMPARABLE = "‡"
SIGNIFICANT = "*"
COST_HEADS = ["parameters", "time a step", "memory", "train time"]
DIFFERENCE_HEADS = [
    "metric", "arm", "Δ to baseline", "seeds", "p", "Holm", "could detect", "verdict",
]  # fmt: skip


Markup = Callable[[str], str]


def mean_lines(
    table: ResultTable, escape: Markup, best: Markup, baseline: Markup, significant: str
) -> list[list[str]]:
    """Return the table of means in a format's markup, its head first.

    ``escape`` makes text that is shown as it is; ``best`` and ``baseline`` mark a mean and a name
    that are escaped already; ``significant`` stands after a mean.
    """
    heads = ["arm", "n", *map(metric_head, table.columns), *COST_HEADS]
    lines = [[escape(head) for head in heads]]
    for row in table.rows:
        name = escape(row.arm)
        line = [baseline(name) if row.is_baseline else name, escape(row.counted)]
        for column in table.columns:
            entry = row.entries[column.metric.name]
            text = escape(value(entry, row))
            text = best(text) if entry.best else text
            line.append(text + significant if entry.significant else text)
        lines.append([*line, *map(escape, costs(row))])
    return lines


def difference_lines(table: ResultTable) -> list[list[str]]:
    """Return the table of differences, its head first: a line for each metric and arm."""
    lines = [DIFFERENCE_HEADS]
    others = [row for row in table.rows if not row.is_baseline]
    for column, row in itertools.product(table.columns, others):
        metric, entry = column.metric, row.entries[column.metric.name]
        line = [f"{metric.name} {metric.arrow}", row.arm, change(entry, row)]
        if (difference := entry.difference) is not None:
            line += [str(difference.mean.n), p_value(difference.p), p_value(difference.p_holm)]
            line += [number(difference.detectable), verdict(difference)]
        else:
            line += [""] * 4 + ["" if entry.comparable else "not comparable"]
        lines.append(line)
    return lines


def metric_head(column: MetricColumn) -> str:
    """Return a metric's name, its arrow, and the mark of one that must not be ranked."""
    mark = "" if column.scale.everywhere else f" {INCOMPARABLE}"
    return f"{column.metric.name} {column.metric.arrow}{mark}"


def mean_text(mean: SeedMean, expected: int, *, signed: bool = False) -> str:
    """Return ``0.813 ± 0.021``, with as many decimals as its size deserves.

    Where the mean is over fewer seeds than ``expected``, their number follows.
    """
    half, sign = mean.half_width, "+" if signed and not math.isnan(mean.mean) else ""
    scale = max(abs(mean.mean), half or 0.0)
    if not scale < 1e5:  # diverged, or not a number
        text = f"{mean.mean:{sign}.3g}" + ("" if half is None else f" ± {half:.3g}")
    else:
        digits = 3 if scale < 10 else 1 if scale < 1000 else 0
        if 0 < scale < 1e-2:
            digits = 2 - math.floor(math.log10(scale))
        text = f"{mean.mean:{sign}.{digits}f}"
        text += "" if half is None else f" ± {half:.{digits}f}"
    return text if mean.n == expected else f"{text} (n={mean.n})"


def value(entry: Entry, row: ArmRow) -> str:
    """Return the mean of an entry, or why there is none."""
    return mean_text(entry.own, row.done) if entry.own else entry.absence


def change(entry: Entry, row: ArmRow) -> str:
    """Return an entry's difference to the baseline, or why there is none."""
    if row.is_baseline:
        return ""
    if entry.own is None:
        return entry.absence
    if not entry.comparable:
        return INCOMPARABLE
    if entry.difference is None:
        return MISSING
    return mean_text(entry.difference.mean, row.done, signed=True)


def p_value(probability: float | None) -> str:
    """Return a p value with two digits: ``0.25``, ``0.031``, ``6.1e-05``."""
    return MISSING if probability is None else f"{probability:.2g}"


def number(size: float | None) -> str:
    """Return a plain number with three digits."""
    return MISSING if size is None or math.isnan(size) else f"{size:.3g}"


def verdict(difference: Difference) -> str:
    """Return what may be said of a difference."""
    if difference.p is None:
        return "not a number"
    if difference.significant:
        return "significant"
    return "not significant" if difference.can_be_significant else "too few seeds"


def costs(row: ArmRow) -> list[str]:
    """Return the cells under ``COST_HEADS``."""
    absent = MISSING if row.runs else NOT_APPLICABLE
    return [
        absent if row.parameters is None else _parameters(*row.parameters),
        absent if row.step_seconds is None else _step_time(row.step_seconds),
        absent if row.peak_memory_bytes is None else _memory(row.peak_memory_bytes),
        absent if row.train_seconds is None else duration(row.train_seconds),
    ]


def _parameters(trainable: int, frozen: int) -> str:
    """Return ``1.27 M + 1.11 M frozen``."""
    return _count(trainable) + (f" + {_count(frozen)} frozen" if frozen else "")


def _count(size: int) -> str:
    for unit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if size >= unit:
            return f"{size / unit:.2f} {letter}"
    return str(size)


def _step_time(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _memory(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
