"""The laws: mathematical rules that every part obeys, as functions.

A plug-in's test is one call::

    from pretzel.testing import run_laws

    def test_laws():
        run_laws(lambda: MyBlock(channels=3, grid=(3, 3), ...))

On the command line it is ``pretzel check my_package.MyBlock``, and ``pytest --laws my_package`` for
every part of a package. Names are imported when they are asked for, so that the help of the
command costs no torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pretzel.testing.deviation import Deviation, LawBroken
    from pretzel.testing.discovery import concrete_classes
    from pretzel.testing.law_case import Case, perturb
    from pretzel.testing.suite import Law, Outcome, laws_of, run_laws, try_laws
    from pretzel.testing.tiny_model import tiny_pretzel
else:

    def __getattr__(name: str) -> object:
        """Import a public name on first use (PEP 562)."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


_MODULES = {
    "Case": "law_case",
    "Deviation": "deviation",
    "Law": "suite",
    "LawBroken": "deviation",
    "Outcome": "suite",
    "concrete_classes": "discovery",
    "laws_of": "suite",
    "perturb": "law_case",
    "run_laws": "suite",
    "tiny_pretzel": "tiny_model",
    "try_laws": "suite",
}

__all__ = [
    "Case",
    "Deviation",
    "Law",
    "LawBroken",
    "Outcome",
    "concrete_classes",
    "laws_of",
    "perturb",
    "run_laws",
    "tiny_pretzel",
    "try_laws",
]
