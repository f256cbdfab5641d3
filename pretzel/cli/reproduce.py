"""The command ``pretzel reproduce``."""

from pathlib import Path

from pretzel.ablation.engines.options import add_engine_options, engine_of
from pretzel.cli.failure_options import add_failure_options
from pretzel.cli.parser import Parser


def build_parser() -> Parser:
    """Return the parser of the command's arguments."""
    parser = Parser(
        prog="pretzel reproduce",
        description="Run a row of a grid's table again, in another folder, and print what came out "
        "otherwise. Exit code 0: every metric is the same to the last bit.",
    )
    parser.add_argument("table", type=Path, help="the grid's output folder, or a report in it")
    parser.add_argument("row", help="an arm, or one of its runs (ARM/seed0)")
    parser.add_argument("--out", type=Path, help="where (default: FOLDER-reproduced)")
    add_engine_options(parser)
    add_failure_options(parser)
    return parser


def reproduce(args: list[str]) -> int:
    """Run ``pretzel reproduce``: one row of a table again, compared with the first time."""
    options = build_parser().parse_args(args)

    table, row, out = options.table, options.row, options.out
    engine = engine_of(options, out or table)()
    try:
        from pretzel.ablation.reproduce import reproduce as run_again

        return run_again(table, row, out, engine, retry=options.retry, fail_fast=options.fail_fast)
    finally:
        engine.close()
