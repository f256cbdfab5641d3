r"""The tables in LaTeX, for ``\usepackage{booktabs}`` and nothing else."""

import re

from pretzel.ablation.report import cell_texts, table_notes
from pretzel.ablation.report.table import ArmRow, ResultTable

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "Δ": r"$\Delta$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "→": r"$\to$",
    "×": r"$\times$",  # noqa: RUF001
    "—": "---",
    "…": r"\ldots{}",
    "‡": r"$\ddagger$",
    "*": r"$^{*}$",
    "\n": " ",
} | {letter: f"\\{letter}" for letter in "&%$#_"}


def latex(summary: ResultTable) -> str:
    """Return two tables; what is missing, and why, is in the caption of the first."""
    return "\n".join(
        [
            f"% Made by: pretzel compare {' '.join(str(summary.comparison.output).split())}",
            r"% Needs \usepackage{booktabs}",
            *_table(_means(summary), "lr", [*table_notes.reading(summary), *_exceptions(summary)]),
            "",
            *_table(_differences(summary), "ll", table_notes.reach(summary)),
            "",
        ]
    )


def escaped(text: str) -> str:
    """Return text that LaTeX prints as it is; signs of the tables become mathematics."""
    text = "".join(_SPECIAL.get(letter, letter) for letter in text)
    return re.sub(r"(?<![-\w])-(?=[\d.])", "$-$", text)  # a minus, not a hyphen


def _means(summary: ResultTable) -> list[list[str]]:
    heads = [cell_texts.head(column) for column in summary.columns]
    lines = [[escaped(head) for head in ["arm", "n", *heads, *cell_texts.COST_HEADS]]]
    for row in summary.rows:
        name = escaped(row.arm) + (" (baseline)" if row.is_baseline else "")
        means = [_mean(row, column.metric.name) for column in summary.columns]
        costs = [escaped(cost) for cost in cell_texts.costs(row)]
        lines.append([name, escaped(row.counted), *means, *costs])
    return lines


def _mean(row: ArmRow, metric: str) -> str:
    entry = row.entries[metric]
    shown = escaped(cell_texts.value(entry, row))
    if entry.best:  # a bold font for text and for the signs between dollars
        shown = rf"{{\boldmath\textbf{{{shown}}}}}"
    return shown + (escaped(cell_texts.SIGNIFICANT) if entry.significant else "")


def _differences(summary: ResultTable) -> list[list[str]]:
    lines, before = [cell_texts.DIFFERENCE_HEADS], ""
    for metric, *cells in cell_texts.difference_lines(summary):
        lines.append([metric if metric != before else "", *cells])
        before = metric
    return [[escaped(cell) for cell in line] for line in lines]


def _exceptions(summary: ResultTable) -> list[str]:
    c = summary.comparison
    told = [*table_notes.incomparable(summary), *table_notes.missing(c), *table_notes.tuned(c)]
    return [note if note.endswith((".", "?")) else f"{note}." for note in told]


def _table(lines: list[list[str]], columns: str, under: list[str]) -> list[str]:
    columns += "r" * (len(lines[0]) - len(columns))
    head, *body = (" & ".join(line) + r" \\" for line in lines)
    caption = " ".join(escaped(note) for note in under)
    return [
        r"\begin{table}",
        r"\centering",
        r"\small",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        head,
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        rf"\caption{{{caption}}}",
        r"\end{table}",
    ]
