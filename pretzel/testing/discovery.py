"""Finds every concrete part of a package, so that the laws test all of them."""

import importlib
import inspect
import pkgutil
import sys
import traceback
from abc import ABC
from types import ModuleType
from typing import TypeVar

from pretzel.errors import UserError

T = TypeVar("T")

# For an error inside one of these, the line that called into it is the useful one.
_LIBRARIES = ("beartype", "importlib", "jaxtyping", "jsonargparse", "torch")


def import_all(package: str) -> None:
    """Import a module, or all of a package but what runs when imported as a program.

    Raises:
        UserError: If one cannot be imported; the message names it.
    """
    root = import_module(package)
    for module in pkgutil.walk_packages(getattr(root, "__path__", ()), f"{package}."):
        if not module.name.endswith(".__main__"):
            import_module(module.name)


def import_module(name: str) -> ModuleType:
    """Import one module; an error inside it becomes one sentence.

    Raises:
        UserError: If there is no such module, or it raises.
    """
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        if isinstance(error, ModuleNotFoundError) and error.name:
            reason = f"it needs module '{error.name}'"
            if f"{name}.".startswith(f"{error.name}."):
                raise UserError(
                    f"no module '{error.name}': it is neither installed nor in the current folder"
                ) from error
        what = f"module '{name}' cannot be imported: {reason}{raised_at(error)}"
        raise UserError(what) from error


def concrete_classes(base: type[T], package: str) -> list[type[T]]:
    """Return every class of a package that is a ``base`` and can be instantiated, by name.

    Args:
        base: The kind of part.
        package: Dotted name of a package or of a single module; all of it is imported.

    Raises:
        UserError: If a module of it cannot be imported.
    """
    import_all(package)
    classes = [base]
    for parent in classes:  # which grows meanwhile
        classes += [child for child in parent.__subclasses__() if child not in classes]
    in_package = (
        c
        for c in classes[1:]
        if f"{c.__module__}.".startswith(f"{package}.")
        and not (inspect.isabstract(c) or ABC in c.__bases__)
    )
    return sorted(in_package, key=lambda c: f"{c.__module__}.{c.__qualname__}")


def contracts_outside(package: str) -> list[type]:
    """Return the contracts that name a module of laws, of classes of an imported package."""
    modules = [module for name, module in sys.modules.items() if f"{name}.".startswith(package)]
    values = [value for module in modules for value in vars(module).values()]
    classes = [value for value in values if isinstance(value, type)]
    bases = {base for part in classes for base in part.__mro__ if "laws" in vars(base)}
    return sorted(bases, key=lambda c: f"{c.__module__}.{c.__qualname__}")


def one_line(error: BaseException) -> str:
    """Return an error's message without line breaks."""
    return " ".join(str(error).split())


def raised_at(error: BaseException) -> str:
    """Return ``" (file:line)"`` of the innermost line outside of libraries, or nothing."""
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__", ""))
        is_library = module.partition(".")[0] in _LIBRARIES or module == __name__
        if not is_library and not frame.f_code.co_filename.startswith("<"):
            place = f" ({frame.f_code.co_filename}:{line})"
    return place
