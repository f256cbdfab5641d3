"""The command ``pretzel compare``."""

import shlex
import sys
from pathlib import Path

from pretzel.cli.parser import Parser
from pretzel.errors import UserError


def build_parser() -> Parser:
    """Return the parser of the command's arguments."""
    parser = Parser(
        prog="pretzel compare",
        description="Compare the arms of a grid. Writes compare.md, .tex, .csv and .html into its "
        "folder, and compare_summary.csv; shows one of them.",
    )
    parser.add_argument(
        "folder", type=Path, help="the grid's output folder, such as runs/quickstart"
    )
    parser.add_argument(
        "--format",
        choices=["terminal", "markdown", "latex", "csv", "html", "all"],
        help="what to show; by default terminal on a terminal and markdown elsewhere; all: only "
        "the names of the files",
    )
    parser.add_argument("--out", type=Path, help="a file for it, instead of standard output")
    return parser


def compare(args: list[str]) -> int:
    """Run ``pretzel compare``: show the report and write it and HParams into the folder."""
    options = build_parser().parse_args(args)

    from pretzel.ablation.report import terminal
    from pretzel.ablation.report.grid_report import FILES, Report
    from pretzel.files.atomic import write_text

    out, form = options.out, options.format
    if out is not None:
        form = _format_of_file(out, form)
    report = Report(options.folder, shlex.join(["pretzel", "compare", *args]))
    if form == "all":
        print(*report.save(), sep="\n")
        return 0
    report.save_if_possible()
    if out is not None:
        write_text(out, report.text(form))
        print(out)
    elif form == "terminal" or (form is None and sys.stdout.isatty()):
        terminal.show(report.table)
    elif form == "html" and sys.stdout.isatty():
        print((options.folder / FILES["html"]).resolve().as_uri())
    else:
        print(report.text(form or "markdown"))
    return 0


def _format_of_file(out: Path, form: str | None) -> str:
    """Return the format of the file that ``--out`` names, by its ending if none is given."""
    from pretzel.ablation.report.grid_report import FILES

    if form == "all":
        raise UserError("--out names one file: give one --format with it, not all")
    if out.is_dir():
        raise UserError(f"--out {out} is a folder; name a file, such as {out / 'compare.html'}")
    formats = {Path(name).suffix: one for one, name in FILES.items()}
    form = form or formats.get(out.suffix)
    if form is None:
        endings = ", ".join(formats)
        raise UserError(
            f"--out {out}: give a --format with it, or a name that ends in one of {endings}"
        )
    return form
