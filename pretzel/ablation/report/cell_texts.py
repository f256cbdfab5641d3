"""Numbers as a table shows them."""

import math

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


def shown(estimate: SeedMean, expected: int, *, signed: bool = False) -> str:
    """Return ``0.813 ± 0.021``, with as many decimals as its size deserves.

    Args:
        estimate: What to show.
        expected: Number of seeds; told where the estimate has fewer.
        signed: Whether to show a plus.
    """
    half, sign = estimate.half_width, "+" if signed and not math.isnan(estimate.mean) else ""
    scale = max(abs(estimate.mean), half or 0.0)
    if not scale < 1e5:  # diverged, or not a number
        text = f"{estimate.mean:{sign}.3g}" + ("" if half is None else f" ± {half:.3g}")
    else:
        digits = 3 if scale < 10 else 1 if scale < 1000 else 0
        if 0 < scale < 1e-2:
            digits = 2 - math.floor(math.log10(scale))
        text = f"{estimate.mean:{sign}.{digits}f}"
        text += "" if half is None else f" ± {half:.{digits}f}"
    return text if estimate.n == expected else f"{text} (n={estimate.n})"


def head(column: MetricColumn) -> str:
    """Return a metric's name, its arrow, and the mark of one that must not be ranked."""
    mark = "" if column.scale.everywhere else f" {INCOMPARABLE}"
    return f"{column.metric.name} {column.metric.arrow}{mark}"


def costs(row: ArmRow) -> list[str]:
    """Return the cells under ``COST_HEADS``."""
    return [parameters(row), step_time(row), memory(row), train_time(row)]


def difference_lines(summary: ResultTable) -> list[list[str]]:
    """Return the cells under ``DIFFERENCE_HEADS``, for each metric and arm."""
    lines = []
    for column in summary.columns:
        for row in summary.rows:
            if row.is_baseline:
                continue
            entry = row.entries[column.metric.name]
            line = [f"{column.metric.name} {column.metric.arrow}", row.arm, change(entry, row)]
            if (difference := entry.difference) is not None:
                line += [
                    str(difference.estimate.n),
                    p(difference.p),
                    p(difference.p_holm),
                    number(difference.detectable),
                    verdict(difference),
                ]
            else:
                line += [""] * 4 + ["" if entry.comparable else "not comparable"]
            lines.append(line)
    return lines


def value(entry: Entry, row: ArmRow) -> str:
    """Return the mean of an entry, or why there is none."""
    return shown(entry.own, row.done) if entry.own else entry.absence


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
    return shown(entry.difference.estimate, row.done, signed=True)


def p(probability: float | None) -> str:
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


def parameters(row: ArmRow) -> str:
    """Return ``1.27 M + 1.11 M frozen``."""
    if row.parameters is None:
        return _absent(row)
    trainable, frozen = row.parameters
    return count(trainable) + (f" + {count(frozen)} frozen" if frozen else "")


def count(size: int) -> str:
    """Return a number of things as ``1.27 M``."""
    for unit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if size >= unit:
            return f"{size / unit:.2f} {letter}"
    return str(size)


def step_time(row: ArmRow) -> str:
    """Return the time a step as ``12.3 ms`` or ``1.84 s``."""
    seconds = row.step_seconds
    if seconds is None:
        return _absent(row)
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def memory(row: ArmRow) -> str:
    """Return the peak memory as ``512 MiB`` or ``3.41 GiB``."""
    size = row.peak_memory_bytes
    if size is None:
        return _absent(row)
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def train_time(row: ArmRow) -> str:
    """Return the mean time of training."""
    return _absent(row) if row.train_seconds is None else duration(row.train_seconds)


def _absent(row: ArmRow) -> str:
    return MISSING if row.runs else NOT_APPLICABLE
