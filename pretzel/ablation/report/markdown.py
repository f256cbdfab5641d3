"""The tables in Markdown."""

from collections.abc import Sequence

from pretzel.ablation.report import cell_texts, item_texts
from pretzel.ablation.report import table_notes as notes
from pretzel.ablation.report.table import ResultTable

_SPECIAL = str.maketrans({"|": "\\|", "<": "\\<", "*": "\\*", "\n": " "})


def markdown(table: ResultTable) -> str:
    """Return the tables, with what is missing and what the arms change below them."""
    c = table.comparison
    means = cell_texts.mean_lines(
        table,
        escape=_escaped,
        best=lambda text: f"**{text}**",
        baseline=lambda name: f"**{name}** (baseline)",
        significant=f" {_escaped(cell_texts.SIGNIFICANT)}",
    )
    parts = [*_table(means), "", *_paragraphs(notes.reading(table))]
    parts += _paragraphs(notes.warnings(table))
    parts += _items([*notes.missing(c), *notes.tuned(c)])
    if any(column.compared for column in table.columns):
        lines = cell_texts.difference_lines(table)
        parts += ["", "**Differences to the baseline**", "", *_table(_escaped_lines(lines)), ""]
        parts += _paragraphs(notes.reach(table))
    if table.items.metrics:
        parts += [
            "",
            "**Test items**",
            "",
            *_table(_escaped_lines(item_texts.mean_lines(table.items))),
            "",
        ]
        parts += [*_table(_escaped_lines(item_texts.difference_lines(table.items))), ""]
    parts += _paragraphs(item_texts.reading(table.items))
    if sources := notes.provenance(table):
        parts += ["Computed from:", "", *_items(sources), ""]
    changed = [f"{arm}: {'; '.join(changes)}" for arm, changes in c.arms.items() if changes]
    return "\n".join([*parts, "**What each arm changes**", "", *_items(changed), ""])


def _table(lines: Sequence[Sequence[str]]) -> list[str]:
    head, *body = (f"| {' | '.join(line)} |" for line in lines)
    return [head, f"| {' | '.join(['---'] * len(lines[0]))} |", *body]


def _escaped_lines(lines: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[_escaped(cell) for cell in line] for line in lines]


def _paragraphs(texts: Sequence[str]) -> list[str]:
    return [f"{_escaped(text)}\n" for text in texts]


def _items(texts: Sequence[str]) -> list[str]:
    return [f"- {_escaped(text)}" for text in texts]


def _escaped(text: str) -> str:
    """Return text that is the same when Markdown is shown: no table cell or tag ends in it."""
    return text.translate(_SPECIAL)
