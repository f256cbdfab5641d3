"""The base class of the argument parsers of all commands. Needs no torch."""

import argparse
from typing import NoReturn

from pretzel.errors import UserError


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are users' mistakes, printed as all others are."""

    def error(self, message: str) -> NoReturn:
        """Raise a ``UserError`` with the message, and where help is."""
        raise UserError(f"{message} (see {self.prog} --help)")
