"""Exchange of the ``forward`` of somebody else's modules, for the length of a call.

Nothing is registered in a module: its state dict, its type and its own weights are what they were,
and what calls it does not know.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

Forward = Callable[..., Any]


@contextmanager
def exchanged(forwards: Mapping[nn.Module, Forward]) -> Iterator[None]:
    """Run other things in the place of modules; what others had exchanged comes back at the end."""
    before = exchanges(forwards)
    try:
        for module, forward in forwards.items():
            vars(module)["forward"] = forward
        yield
    finally:
        for module in forwards:
            vars(module).pop("forward", None)
            if module in before:
                vars(module)["forward"] = before[module]


def exchanges(modules: Iterable[nn.Module]) -> dict[nn.Module, Forward]:
    """Return what runs in the place of modules now, such as routes to other weights."""
    return {m: vars(m)["forward"] for m in modules if "forward" in vars(m)}
