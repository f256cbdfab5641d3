"""Every concrete part of a package, so that none is forgotten by the laws."""

import importlib
import inspect
import pkgutil
from typing import TypeVar

T = TypeVar("T")


def import_all(package: str) -> None:
    """Import every module of a package, but those that run when imported as a program."""
    root = importlib.import_module(package)
    for module in pkgutil.walk_packages(root.__path__, f"{package}."):
        if not module.name.endswith(".__main__"):
            importlib.import_module(module.name)


def concrete_classes(base: type[T], package: str) -> list[type[T]]:
    """Return every class of a package that is a ``base`` and can be instantiated, by name."""
    import_all(package)
    found: set[type[T]] = set()
    waiting = [base]
    while waiting:
        for child in waiting.pop().__subclasses__():
            if child not in found:
                found.add(child)
                waiting.append(child)
    own = (
        c for c in found if c.__module__.partition(".")[0] == package and not inspect.isabstract(c)
    )
    return sorted(own, key=lambda c: f"{c.__module__}.{c.__qualname__}")
