r"""The tables in LaTeX, for ``\usepackage{booktabs}`` and nothing else."""

import re

from pretzel.ablation.report import formats, notes
from pretzel.ablation.report.summary import Row, Summary

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


def latex(summary: Summary) -> str:
    """Return two tables; what is missing, and why, is in the caption of the first."""
    return "\n".join(
        [
            f"% Made by: pretzel compare {' '.join(str(summary.comparison.output).split())}",
            r"% Needs \usepackage{booktabs}",
            *_table(_means(summary), "lr", [*notes.reading(summary), *_exceptions(summary)]),
            "",
            *_table(_differences(summary), "ll", notes.reach(summary)),
            "",
        ]
    )


def escaped(text: str) -> str:
    """Return text that LaTeX prints as it is; signs of the tables become mathematics."""
    text = "".join(_SPECIAL.get(letter, letter) for letter in text)
    return re.sub(r"(?<![-\w])-(?=[\d.])", "$-$", text)  # a minus, not a hyphen


def _means(summary: Summary) -> list[list[str]]:
    heads = [formats.head(column) for column in summary.columns]
    lines = [[escaped(head) for head in ["arm", "n", *heads, *formats.COST_HEADS]]]
    for row in summary.rows:
        name = escaped(row.arm) + (" (baseline)" if row.is_baseline else "")
        means = [_mean(row, column.metric.name) for column in summary.columns]
        costs = [escaped(cost) for cost in formats.costs(row)]
        lines.append([name, escaped(row.counted), *means, *costs])
    return lines


def _mean(row: Row, metric: str) -> str:
    entry = row.entries[metric]
    shown = escaped(formats.value(entry, row))
    if entry.best:  # a bold font for text and for the signs between dollars
        shown = rf"{{\boldmath\textbf{{{shown}}}}}"
    return shown + (escaped(formats.SIGNIFICANT) if entry.significant else "")


def _differences(summary: Summary) -> list[list[str]]:
    lines, before = [formats.DIFFERENCE_HEADS], ""
    for metric, *cells in formats.difference_lines(summary):
        lines.append([metric if metric != before else "", *cells])
        before = metric
    return [[escaped(cell) for cell in line] for line in lines]


def _exceptions(summary: Summary) -> list[str]:
    c = summary.comparison
    told = [*notes.incomparable(summary), *notes.missing(c), *notes.tuned(c)]
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
