"""Replace the ``forward`` of somebody else's modules for the length of a call.

Nothing is registered in a module: its state dict, its type and its own weights are what they were,
and what calls it does not know.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

Forward = Callable[..., Any]


@contextmanager
def replaced_forwards(forwards: Mapping[nn.Module, Forward]) -> Iterator[None]:
    """Run other functions in the place of modules; earlier replacements come back at the end."""
    before = replacements(forwards)
    try:
        for module, forward in forwards.items():
            # not setattr, with which nn.Module would register a module as a child
            vars(module)["forward"] = forward
        yield
    finally:
        for module in forwards:
            vars(module).pop("forward", None)
            if module in before:
                vars(module)["forward"] = before[module]


def replacements(modules: Iterable[nn.Module]) -> dict[nn.Module, Forward]:
    """Return the functions that now run in the place of modules, such as routes to weights."""
    return {m: vars(m)["forward"] for m in modules if "forward" in vars(m)}
