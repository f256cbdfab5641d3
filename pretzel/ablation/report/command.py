"""``pretzel compare``: what is shown, and what is written where."""

import shlex
import sys
from pathlib import Path
from typing import Literal

from pretzel.ablation.report import terminal
from pretzel.ablation.report.grid_report import FILES, Format, Report
from pretzel.errors import UserError
from pretzel.files.atomic import write_text


def report(folder: Path, command: str = "") -> Report:
    """Read a grid's folder and write every format into it; where that cannot be, say so.

    Args:
        folder: The grid's output folder.
        command: What makes the report; ``pretzel compare FOLDER`` if empty.

    Raises:
        UserError: If no grid has been run there.
    """
    made = Report(folder, command or shlex.join(["pretzel", "compare", str(folder)]))
    try:
        made.save()
    except UserError as error:
        print(f"pretzel: {error}: the report is not saved there", file=sys.stderr)
    return made


def show(
    folder: Path,
    form: Format | Literal["all"] | None,
    out: Path | None,
    command: str,
) -> None:
    """Write the report into the grid's folder, and show one format of it.

    Args:
        folder: The grid's output folder.
        form: What to show; None for what suits the file or standard output; ``all`` writes all
            and shows the files' names.
        out: A file for it instead of standard output.
        command: What makes the report.

    Raises:
        UserError: If no grid has been run there, or a file that was asked for cannot be written.
    """
    if out is not None:
        form = _of_file(out, form)
    if form == "all":
        for path in Report(folder, command).save():
            print(path)
        return
    if out is not None and out.is_dir():
        raise UserError(f"--out {out} is a folder; name a file, such as {out / 'compare.html'}")
    made = report(folder, command)
    if out is not None:
        write_text(out, made.text(_of_file(out, form)))
        print(out)
    elif form == "terminal" or (form is None and sys.stdout.isatty()):
        terminal.show(made.summary)
    elif form == "html" and sys.stdout.isatty():
        print(f"{(folder / FILES['html']).resolve().as_uri()}")
    else:
        print(made.text(form or "markdown"))


def _of_file(out: Path, form: Format | Literal["all"] | None) -> Format:
    """Return the format that a file is to have.

    Raises:
        UserError: If none is given and the name does not tell.
    """
    if form == "all":
        raise UserError("--out names one file: give one --format with it, not all")
    if form is not None:
        return form
    for known, name in FILES.items():
        if out.suffix == Path(name).suffix:
            return known
    endings = ", ".join(Path(name).suffix for name in FILES.values())
    raise UserError(
        f"--out {out}: give a --format with it, or a name that ends in one of {endings}"
    )
