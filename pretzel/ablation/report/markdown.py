"""The tables in Markdown."""

from pretzel.ablation.report import cell_texts, table_notes
from pretzel.ablation.report.table import ArmRow, ResultTable

_SPECIAL = str.maketrans({"|": "\\|", "<": "\\<", "*": "\\*", "\n": " "})


def markdown(summary: ResultTable) -> str:
    """Return the tables, with what is missing and what the arms change below them."""
    c = summary.comparison
    parts = [_means(summary), "", *(f"{_escaped(note)}\n" for note in table_notes.reading(summary))]
    parts += [f"{_escaped(note)}\n" for note in table_notes.incomparable(summary)]
    parts += [f"- {_escaped(note)}" for note in (*table_notes.missing(c), *table_notes.tuned(c))]
    if any(column.compared for column in summary.columns):
        parts += ["", "**Differences to the baseline**", "", _differences(summary), ""]
        parts += [f"{_escaped(note)}\n" for note in table_notes.reach(summary)]
    if told := table_notes.provenance(summary):
        parts += ["Computed from:", "", *(f"- {_escaped(note)}" for note in told), ""]
    changed = [
        f"- {_escaped(a)}: {_escaped('; '.join(told))}" for a, told in c.arms.items() if told
    ]
    return "\n".join([*parts, "**What each arm changes**", "", *changed, ""])


def _means(summary: ResultTable) -> str:
    heads = [cell_texts.head(column) for column in summary.columns]
    lines = [["arm", "n", *heads, *cell_texts.COST_HEADS]]
    lines.append(["---"] * len(lines[0]))
    for row in summary.rows:
        name = f"**{_escaped(row.arm)}** (baseline)" if row.is_baseline else _escaped(row.arm)
        means = [_mean(row, column.metric.name) for column in summary.columns]
        lines.append([name, row.counted, *means, *cell_texts.costs(row)])
    return "\n".join(_line(line) for line in lines)


def _mean(row: ArmRow, metric: str) -> str:
    entry = row.entries[metric]
    shown = cell_texts.value(entry, row)
    shown = f"**{shown}**" if entry.best else shown
    return f"{shown} {_escaped(cell_texts.SIGNIFICANT)}" if entry.significant else shown


def _differences(summary: ResultTable) -> str:
    heads = cell_texts.DIFFERENCE_HEADS
    lines = [heads, ["---"] * len(heads)]
    lines += [[_escaped(cell) for cell in line] for line in cell_texts.difference_lines(summary)]
    return "\n".join(_line(line) for line in lines)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """Return text that is the same when Markdown is shown: no table cell or tag ends in it."""
    return text.translate(_SPECIAL)
