"""Every format of a grid's report, and the files that it leaves in the grid's folder."""

import io
import shlex
import sys
from functools import cached_property
from pathlib import Path
from typing import Literal

from rich.console import Console

from pretzel.ablation.report import csv_tables, tensorboard_hparams, terminal
from pretzel.ablation.report.comparison import load
from pretzel.ablation.report.latex import latex
from pretzel.ablation.report.markdown import markdown
from pretzel.ablation.report.page import page
from pretzel.ablation.report.table import result_table
from pretzel.errors import UserError
from pretzel.files.atomic import write_text

Format = Literal["terminal", "markdown", "latex", "csv", "html"]

FILES: dict[Format, str] = {
    "markdown": "compare.md",
    "latex": "compare.tex",
    "csv": "compare.csv",
    "html": "compare.html",
}
SUMMARY = "compare_summary.csv"
"""The table as CSV, beside ``compare.csv`` with the values of every run."""
ITEMS = "compare_items.csv"
"""Test items as CSV, where runs have kept their results."""


class Report:
    """The report of a grid's output folder.

    The page names the command that makes it, ``pretzel compare FOLDER`` if empty.

    Raises:
        UserError: If no grid has been run there.
    """

    def __init__(self, folder: Path, command: str = "") -> None:
        self.folder = folder
        self.command = command or shlex.join(["pretzel", "compare", str(folder)])
        self.table = result_table(load(folder))

    @cached_property
    def _page(self) -> str:
        return page(self.table, self.command)

    def text(self, form: Format, width: int = 120) -> str:
        """Return the report in one format; the terminal's has so many columns."""
        if form == "terminal":
            file = io.StringIO()
            terminal.show(self.table, Console(file=file, width=width))
            return file.getvalue()
        if form == "markdown":
            return markdown(self.table)
        if form == "latex":
            return latex(self.table)
        return csv_tables.values(self.table) if form == "csv" else self._page

    def save(self) -> list[Path]:
        """Write every format, and the grid's records for TensorBoard; return the report's files.

        Raises:
            UserError: If the folder cannot be written.
        """
        texts = {name: self.text(form) for form, name in FILES.items()}
        texts[SUMMARY] = csv_tables.summary(self.table)
        if self.table.items.metrics:
            texts[ITEMS] = csv_tables.items(self.table)
        for name, text in texts.items():
            write_text(self.folder / name, text)
        try:
            tensorboard_hparams.write(self.table.comparison)
        except OSError as error:
            raise UserError(f"{self.folder}: cannot be written ({error.strerror})") from error
        return [self.folder / name for name in texts]

    def save_if_possible(self) -> None:
        """Write every format into the folder; where that cannot be, say so on standard error."""
        try:
            self.save()
        except UserError as error:
            print(f"pretzel: {error}: the report is not saved there", file=sys.stderr)
