r"""The tables in LaTeX, for ``\usepackage{booktabs}`` and nothing else."""

import re

import pandas as pd

from pretzel.ablation.report import cell_texts, item_texts
from pretzel.ablation.report import table_notes as notes
from pretzel.ablation.report.table import ResultTable

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
    "√": r"$\surd$",
    "−": "$-$",  # noqa: RUF001
    "×": r"$\times$",  # noqa: RUF001
    "—": "---",
    "…": r"\ldots{}",
    "‡": r"$\ddagger$",
    "*": r"$^{*}$",
    "\n": " ",
} | {letter: f"\\{letter}" for letter in "&%$#_"}


def latex(table: ResultTable) -> str:
    """Return two tables; what is missing, and why, is in the caption of the first."""
    c = table.comparison
    means = cell_texts.mean_lines(
        table,
        escape=escaped,
        # a bold font for text and for the signs between dollars
        best=lambda text: rf"{{\boldmath\textbf{{{text}}}}}",
        baseline=lambda name: f"{name} (baseline)",
        significant=escaped(cell_texts.SIGNIFICANT),
    )
    exceptions = [*notes.warnings(table), *notes.missing(c), *notes.tuned(c)]
    exceptions = [note if note.endswith((".", "?")) else f"{note}." for note in exceptions]
    items: list[str] = []
    if table.items.metrics:
        items = [
            *_table(_once(item_texts.mean_lines(table.items)), "ll", []),
            "",
            *_table(
                _once(item_texts.difference_lines(table.items)),
                "ll",
                item_texts.reading(table.items),
            ),
            "",
        ]
    return "\n".join(
        [
            f"% Made by: pretzel compare {' '.join(str(c.output).split())}",
            r"% Needs \usepackage{booktabs}",
            *_table(means, "lr", [*notes.reading(table), *exceptions]),
            "",
            *_table(_once(cell_texts.difference_lines(table)), "ll", notes.reach(table)),
            "",
            *items,
        ]
    )


def _once(lines: list[list[str]]) -> list[list[str]]:
    """Return escaped lines, in which each metric stands once."""
    shown, before = [], ""
    for metric, *cells in lines:
        first = metric if metric != before else ""
        shown.append([escaped(cell) for cell in (first, *cells)])
        before = metric
    return shown


def escaped(text: str) -> str:
    """Return text that LaTeX prints as it is; signs of the tables become mathematics."""
    text = "".join(_SPECIAL.get(letter, letter) for letter in text)
    return re.sub(r"(?<![-\w])-(?=[\d.])", "$-$", text)  # a minus, not a hyphen


def _table(lines: list[list[str]], columns: str, caption: list[str]) -> list[str]:
    """Return a table environment; further columns than those named are right-aligned."""
    head, *body = lines
    tabular = pd.DataFrame(body, columns=head).to_latex(
        index=False, escape=False, column_format=columns + "r" * (len(head) - len(columns))
    )
    return [
        r"\begin{table}",
        r"\centering",
        r"\small",
        tabular.rstrip(),
        rf"\caption{{{' '.join(map(escaped, caption))}}}",
        r"\end{table}",
    ]
