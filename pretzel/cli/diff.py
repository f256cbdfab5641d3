"""The command ``pretzel diff``."""

from pathlib import Path

from pretzel.cli.parser import Parser


def build_parser() -> Parser:
    """Return the parser of the command's arguments."""
    parser = Parser(
        prog="pretzel diff",
        description="Show what differs between two runs or arms: configuration, data, versions, "
        "code and metrics.",
    )
    for name in ("first", "second"):
        parser.add_argument(name, type=Path, help="runs/GRID/ARM or runs/GRID/ARM/seed0")
    parser.add_argument("--patch", action="store_true", help="show the source code that differs")
    return parser


def diff(args: list[str]) -> int:
    """Run ``pretzel diff``: print what differs between two runs or arms."""
    options = build_parser().parse_args(args)

    from pretzel.ablation.diff import diff as diff_runs

    print(diff_runs(options.first, options.second, whole_patch=options.patch))
    return 0
