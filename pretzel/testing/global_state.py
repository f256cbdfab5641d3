"""The global random states, which laws seed for themselves and find untouched or not."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pretzel.rng import StateWatch, global_states, seed_global, set_global_states
from pretzel.testing.deviation import require


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
    return [name for name in before if not _equal(before[name], after[name])]


def has_drawn(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Tell whether numbers of numpy or torch were drawn; of Python's, checkers of types draw."""
    return bool(set(changed_states(before, after)) - {"python"})


def draws_in_training(part: nn.Module, exercise: Callable[[Any], None]) -> bool:
    """Tell whether a part draws from a global random state in training mode, as dropout does.

    Args:
        part: The part; float64 and in training mode afterwards.
        exercise: Runs it once.
    """
    part.double().train()
    with seeded("draws"), torch.no_grad():
        before = global_states()
        try:
            exercise(part)
        except Exception:  # which a law will find, and name
            return False
        return has_drawn(before, global_states())


def _equal(before: Any, after: Any) -> bool:  # noqa: ANN401
    return before.equal(after) if isinstance(before, Tensor) else bool(before == after)


@contextmanager
def untouched(action: str) -> Iterator[None]:
    """Raise ``LawBroken`` if the global random states change, or Python's is seeded.

    From Python's may be drawn: whatever checks the types of arguments does that too.
    """
    before, watch = global_states(), StateWatch()
    yield
    changed = {*changed_states(before, global_states())} - {"python"} | {*watch.reset()}
    require(not changed, f"{action} changes the global random states of {sorted(changed)}")
