"""The command ``pretzel compare``."""

import shlex
from pathlib import Path

from pretzel.cli.parser import Parser


def compare(args: list[str]) -> int:
    """Run ``pretzel compare``: show the report and write it and HParams into the folder.

    Args:
        args: The output folder of a grid, and options.

    Returns:
        The exit code.

    Raises:
        UserError: For users' mistakes.
    """
    parser = Parser(
        prog="pretzel compare",
        description="Compare the arms of a grid. Writes compare.md, .tex, .csv and .html into its "
        "folder, and compare_summary.csv; shows one of them.",
    )
    parser.add_argument("folder", help="the grid's output folder, such as runs/quickstart")
    parser.add_argument(
        "--format",
        choices=["terminal", "markdown", "latex", "csv", "html", "all"],
        help="what to show; by default terminal on a terminal and markdown elsewhere; all: only "
        "the names of the files",
    )
    parser.add_argument("--out", type=Path, help="a file for it, instead of standard output")
    given = parser.parse_args(args)

    from pretzel.ablation.report.command import show

    show(Path(given.folder), given.format, given.out, shlex.join(["pretzel", "compare", *args]))
    return 0
