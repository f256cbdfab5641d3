"""The laws: mathematical rules that every part obeys, as functions.

A plug-in's test is one call::

    from pretzel.testing import run_laws

    def test_laws():
        run_laws(lambda: MyBlock(channels=3, grid=(3, 3), ...))

On the command line it is ``pretzel check my_package.MyBlock``, and ``pytest --laws my_package`` for
every part of a package.
"""

from pretzel.testing.deviation import Deviation, LawBroken
from pretzel.testing.discovery import concrete_classes
from pretzel.testing.law_case import Case, State, perturb
from pretzel.testing.suite import Law, Outcome, laws_of, run_laws, try_laws
from pretzel.testing.tiny_model import tiny_pretzel

__all__ = [
    "Case",
    "Deviation",
    "Law",
    "LawBroken",
    "Outcome",
    "State",
    "concrete_classes",
    "laws_of",
    "perturb",
    "run_laws",
    "tiny_pretzel",
    "try_laws",
]
