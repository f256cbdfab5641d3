"""``pretzel --print-completion SHELL``: completion of all commands and options, by shtab."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import shtab

from pretzel.cli import compare, data, diff, evaluate, export, grid, init, metrics, reproduce
from pretzel.cli.importing import arguments as importing
from pretzel.cli.parser import Parser
from pretzel.cli.sample import command as sample
from pretzel.errors import UserError

if TYPE_CHECKING:
    from pretzel.runs.cli import Subcommand

SHELLS = ("bash", "zsh")
_FILES = ("config", "ckpt_path", "prompts", "image", "turns", "weights", "paths", "images")
"""Options that take a file without having the type of one."""


def completion(shell: str) -> str:
    """Return a script that completes ``pretzel`` in a shell, ``bash`` or ``zsh``.

    Raises:
        UserError: If it is another.
    """
    if shell not in SHELLS:
        raise UserError(f"--print-completion must be {' or '.join(SHELLS)}, got {shell!r}")
    parser = Parser(prog="pretzel")
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.add_argument("--print-completion", choices=SHELLS, help="print this script")
    commands = parser.add_subparsers()
    parsers = {
        "init": init.build_parser(),
        "fit": _of_run("fit"),
        "validate": _of_run("validate"),
        "test": _of_run("test"),
        "predict": _of_run("predict"),
        "grid": grid.build_parser(),
        "compare": compare.build_parser(),
        "diff": diff.build_parser(),
        "reproduce": reproduce.build_parser(),
        "export": export.build_parser(),
        "sample": sample.build_parser(),
        "evaluate": evaluate.build_parser(),
        "import": importing.build_parser(),
        "check": _of_check(),
        "data": data.build_parser(),
        "metrics": metrics.build_parser(),
    }
    for name, options in parsers.items():
        text = _plain((options.description or "").partition("\n")[0])
        commands.add_parser(name, parents=[options], add_help=False, help=text, description=text)
    _complete_files(parser)
    return str(shtab.complete(parser, shell))


def _of_run(command: "Subcommand") -> Parser:
    """Return the options of ``fit`` and the like, but for those of classes chosen in YAML."""
    from pretzel.runs.cli import ParseOnlyCLI

    description = f"{command} a configuration".capitalize()
    parser = Parser(prog=f"pretzel {command}", description=description, add_help=False)
    for action in ParseOnlyCLI(command)._subcommand_parsers[command]._actions:
        if action.option_strings:
            text = (action.help or "").partition("\n")[0].partition(" (type:")[0]
            parser.add_argument(*action.option_strings, dest=action.dest, help=_plain(text))
    return parser


def _of_check() -> Parser:
    parser = Parser(prog="pretzel check", description="Test a part by its laws")
    parser.add_argument("part", metavar="CLASS", help="dotted path of a class")
    parser.add_argument("--init-args", help="its arguments, in YAML")
    return parser


def _plain(text: str) -> str | None:
    """Return a help text that argparse does not take for a format."""
    return None if text == argparse.SUPPRESS else text.replace("%", "%%")


def _complete_files(parser: argparse.ArgumentParser) -> None:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                _complete_files(inner)
        elif action.type is Path or action.dest in (*_FILES, "file"):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
