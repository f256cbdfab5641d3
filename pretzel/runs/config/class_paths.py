"""Class names in YAML: the full path and the short name of one class are the same class."""

import importlib
from typing import Any, Generic, Protocol

from pretzel.errors import UserError

_NO_ROOTS: frozenset[Any] = frozenset({object, Generic, Protocol})


def import_name(path: str) -> Any | None:  # noqa: ANN401
    """Return the object behind a dotted path, or None where there is none.

    Args:
        path: For example ``torch.optim.AdamW``; nested attributes are followed.
    """
    parts = path.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        return None
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for name in parts[cut:]:
            found = getattr(found, name, None)
        return found
    return None


def subclasses(root: type) -> set[type]:
    """Return a class and all its loaded subclasses."""
    found: set[type] = {root}
    todo: list[type] = [root]
    while todo:
        children: list[type] = type.__subclasses__(todo.pop())
        for child in children:
            if child not in found:
                found.add(child)
                todo.append(child)
    return found


def same_class(first: str, second: str) -> bool:
    """Tell whether two ``class_path`` values name one class.

    Short names are resolved as the parser does it: among the loaded relatives of the class that
    the other value names in full.

    Args:
        first: A short name or a dotted path.
        second: Another one.

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
    roots = [
        base
        for base in target.__mro__
        if base not in _NO_ROOTS and all(up in _NO_ROOTS for up in base.__mro__[1:])
    ]
    named = {c for root in roots for c in subclasses(root) if c.__name__ == short}
    if len(named) > 1:
        paths = ", ".join(sorted(f"{c.__module__}.{c.__qualname__}" for c in named))
        raise UserError(
            f"class_path '{short}' is laid over by '{full}', and could be any of {paths}: "
            "write the full path"
        )
    return named == {target}
