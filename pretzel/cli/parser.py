"""The base class of the argument parsers of all commands. Needs no torch."""

import argparse
import importlib
import os
from pathlib import Path
from typing import Any, NoReturn

from pretzel.errors import UserError

_MAX_NAME = 255  # of all file systems in use; looking for a longer one is an error by itself


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are users' mistakes, printed as all others are.

    Arguments of the type ``Path`` are refused where no file system can hold their names.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **kwargs)
        self.register("type", Path, _path)

    def run(self, args: list[str], module: str) -> int:
        """Run the function of a module that is named as the command is, and return its exit code.

        ``pretzel`` may not import the module, and finds it by name.
        """
        options = self.parse_args(args)
        command: int = getattr(importlib.import_module(module), options.command)(options)
        return command

    def error(self, message: str) -> NoReturn:
        """Raise a ``UserError`` with the message, and where help is."""
        raise UserError(f"{message} (see {self.prog} --help)")


def _path(text: str) -> Path:
    longest = max((len(os.fsencode(part)) for part in Path(text).parts), default=0)
    if longest > _MAX_NAME:
        raise argparse.ArgumentTypeError(
            f"a name in a path may have {_MAX_NAME} bytes at most, got one of {longest}"
        )
    return Path(text)
