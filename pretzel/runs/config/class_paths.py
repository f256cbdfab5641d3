"""Class names in YAML: the full path and the short name of one class are the same class."""

import pkgutil
from typing import Any, Generic, Protocol

from pretzel.errors import UserError

_SHARED_BASES: frozenset[Any] = frozenset({object, Generic, Protocol})  # relate no two classes


def import_name(path: str) -> Any | None:  # noqa: ANN401
    """Return the object behind a dotted path of modules and attributes, if there is one."""
    if "." not in path or not all(part.isidentifier() for part in path.split(".")):
        return None
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


def same_class(first: str, second: str) -> bool:
    """Tell whether two ``class_path`` values name one class.

    Short names are resolved as the parser does it: among the loaded relatives of the class that
    the other value names in full.

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
    if "." in short:
        return import_name(short) is target
    if not isinstance(target, type):
        return False  # functions have no short names
    # as the parser does: it searches below the slot's type, which is one of these bases
    roots = [
        base
        for base in target.__mro__
        if base not in _SHARED_BASES and all(up in _SHARED_BASES for up in base.__mro__[1:])
    ]
    candidates = {c for root in roots for c in subclasses(root) if c.__name__ == short}
    if len(candidates) > 1:
        paths = ", ".join(sorted(f"{c.__module__}.{c.__qualname__}" for c in candidates))
        raise UserError(
            f"class_path '{short}' is laid over by '{full}', and could be any of {paths}: "
            "write the full path"
        )
    return candidates == {target}
