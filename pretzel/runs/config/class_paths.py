"""Class names in YAML: the full path and the short name of one class are the same class."""

import pkgutil
import sys
from typing import Any, Generic, Protocol

from pretzel.errors import UserError

_SHARED_BASES: frozenset[Any] = frozenset({object, Generic, Protocol})  # relate no two classes


def import_name(path: str) -> Any | None:  # noqa: ANN401
    """Return the object behind a dotted path of modules and attributes, if there is one."""
    if "." not in path or not all(part.isidentifier() for part in path.split(".")):
        return None
    module, _, name = path.rpartition(".")
    if module in sys.modules and name in vars(sys.modules[module]):
        return vars(sys.modules[module])[name]  # a tenth of the time; as the parser finds it
    try:
        return pkgutil.resolve_name(path)
    except (ImportError, AttributeError):
        return None


def subclasses(root: type) -> set[type]:
    """Return a class and all its loaded subclasses."""
    classes: set[type] = {root}
    unvisited: list[type] = [root]
    while unvisited:
        new = set[type](type.__subclasses__(unvisited.pop())) - classes
        classes |= new
        unvisited += new
    return classes


def named_class(name: str, slot: tuple[type, ...]) -> Any | None:  # noqa: ANN401
    """Return what a ``class_path`` names; a short name as the parser does, in the slot's classes.

    Raises:
        UserError: If a short name could be several classes.
    """
    from jsonargparse._typehints import resolve_class_path_by_name

    paths = (resolve_class_path_by_name(base, name) for base in slot)
    try:
        return import_name(next((path for path in paths if "." in path), name))
    except ValueError as error:  # its message lists them
        several = str(error).rpartition(": ")[2].rstrip(".")
        raise UserError(f"'{name}' could be any of {several}: write the full path") from error


def same_class(first: str, second: str, slot: tuple[type, ...] = ()) -> bool:
    """Tell whether two ``class_path`` values name one class.

    Args:
        first: A full path, or a short name.
        second: Another one.
        slot: The classes among whose subclasses the parser looks for short names; if they are not
            known, all bases of the class that the other value names in full.

    Raises:
        UserError: If a short name could be several classes.
    """
    if first == second:
        return True
    if first.rpartition(".")[2] != second.rpartition(".")[2]:
        return False
    short, full = sorted((first, second), key=lambda name: "." in name)
    target = import_name(full)
    if target is None:
        return False  # the parser will say that it does not exist
    if isinstance(target, type) and not slot:
        slot = tuple(
            base
            for base in target.__mro__
            if base not in _SHARED_BASES and all(up in _SHARED_BASES for up in base.__mro__[1:])
        )
    return named_class(short, slot) is target
