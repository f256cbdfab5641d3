"""Every format of a grid's report, and the files that it leaves in the grid's folder."""

import io
from functools import cached_property
from pathlib import Path
from typing import Literal

from rich.console import Console

from pretzel.ablation.report import csv_tables, terminal
from pretzel.ablation.report.comparison import load
from pretzel.ablation.report.latex import latex
from pretzel.ablation.report.markdown import markdown
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
"""The table as CSV, beside ``compare.csv`` with the values of every cell."""


class Report:
    """The report of a grid.

    Args:
        folder: The grid's output folder.
        command: The command that makes it; on the page.

    Raises:
        UserError: If no grid has been run there.
    """

    def __init__(self, folder: Path, command: str) -> None:
        self.folder, self.command = folder, command
        self.summary = result_table(load(folder))

    @cached_property
    def _page(self) -> str:
        from pretzel.ablation.report.page import page  # tensorboard and pictures: not for a table
        from pretzel.ablation.report.sample_sheets import read_all

        return page(self.summary, read_all(self.summary.comparison), self.command)

    def text(self, form: Format, width: int = 120) -> str:
        """Return the report in one format.

        Args:
            form: The format.
            width: Columns of the terminal's.
        """
        if form == "terminal":
            file = io.StringIO()
            terminal.show(self.summary, Console(file=file, width=width))
            return file.getvalue()
        if form == "markdown":
            return markdown(self.summary)
        if form == "latex":
            return latex(self.summary)
        return csv_tables.values(self.summary) if form == "csv" else self._page

    def save(self) -> list[Path]:
        """Write every format, and the grid's records for TensorBoard, into the folder.

        Returns:
            The files of the report.

        Raises:
            UserError: If the folder cannot be written.
        """
        from pretzel.ablation.report import tensorboard_hparams

        written = []
        for form, name in FILES.items():
            write_text(self.folder / name, self.text(form))
            written.append(self.folder / name)
        write_text(self.folder / SUMMARY, csv_tables.table(self.summary))
        try:
            tensorboard_hparams.write(self.summary.comparison)
        except OSError as error:
            raise UserError(f"{self.folder}: cannot be written ({error.strerror})") from error
        return [*written, self.folder / SUMMARY]
