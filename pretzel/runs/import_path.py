"""The import path of commands: users' parts are found in the working directory, and hide nothing.

Python puts the working directory first (``python -m``), where a user's ``callbacks/`` would take
the place of ours. Here it comes last, in every process that a command starts.
"""

import importlib.util
import os
import sys
from pathlib import Path

from pretzel.errors import UserError

PACKAGES = ("pretzel", "datamodules", "callbacks")
"""The packages of this project, on top of the import path."""
_ROOT = Path(__file__).parents[2]


def put_working_directory_last() -> None:
    """Move the working directory to the end of the import path, here and in child processes.

    A directory that ``PYTHONPATH`` names stays where the user has put it, and so does the root of
    this project, from which it may run without being installed.
    """
    here = os.getcwd()
    if Path(here) != _ROOT:
        chosen = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        sys.path[:] = [path for path in sys.path if path and (path != here or path in chosen)]
        os.environ["PYTHONSAFEPATH"] = "1"  # children: not first either; add_working_directory
    add_working_directory()


def add_working_directory() -> None:
    """Put the working directory behind all else, if it is not on the import path already."""
    here = os.getcwd()
    if not {"", here} & set(sys.path):
        sys.path.append(here)


def hidden_packages() -> list[str]:
    """Return what the working directory has under the names of our packages, which hide it."""
    here = Path.cwd()
    if here == _ROOT:
        return []
    files = [here / f"{name}.py" for name in PACKAGES]
    folders = [here / name for name in PACKAGES]
    # a clone of this project is no package
    packages = [f for f in folders if any(f.glob("*.py")) and not (f / "pyproject.toml").exists()]
    return [path.name for path in (*packages, *files) if path.exists()]


def check_packages(packages: tuple[str, ...] = PACKAGES) -> None:
    """Refuse packages of others that stand before ours on the import path.

    Raises:
        UserError: Naming the package and where it is.
    """
    for name in packages:
        spec = importlib.util.find_spec(name)
        if spec is None:
            raise UserError(f"the package {name} is missing from {_ROOT}: install pretzel again")
        place = Path((spec.submodule_search_locations or [spec.origin or ""])[0])
        if place.resolve() != (_ROOT / name).resolve():
            raise UserError(
                f"{place} hides the package {name} of pretzel: rename it, or take its folder off "
                "the import path (PYTHONPATH)"
            )
