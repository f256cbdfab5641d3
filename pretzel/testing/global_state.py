"""The global random states, which laws seed for themselves and find untouched or not."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pretzel.rng import global_states, seed_global, set_global_states


@contextmanager
def seeded(*key: int | str) -> Iterator[None]:
    """Seed the global random states by a key; restore them afterwards."""
    before = global_states()
    seed_global("laws", *key)
    try:
        yield
    finally:
        set_global_states(before)


def changed_states(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return whose global random states differ: "python", "numpy", "torch"."""
    return [
        name
        for name in before
        if not (before[name].equal(after[name]) if name == "torch" else before[name] == after[name])
    ]
