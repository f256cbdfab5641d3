"""Refuses parts that seed the global random states, before anything trains.

The states belong to the run. A part that calls ``torch.manual_seed(0)`` makes all seeds and all
arms start from the same weights or draw the same dropout, and their error bars are then of nothing.
Drawing from the states is right: initialisers and dropout do. So is what restores them afterwards
(``torch.random.fork_rng``). It is therefore the states that are looked at, not who calls what, and
nothing of torch is replaced; only once it is known that a state was reset, the same code runs again
under a profiler that finds whose it was.
"""

import contextlib
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from pretzel.errors import UserError
from pretzel.rng import StateWatch, seed_global

T = TypeVar("T")

_LIBRARIES = ("contextlib", "jsonargparse", "lightning", "numpy", "random", "torch")


def built_without_seeding(build: Callable[[], T]) -> T:
    """Return what ``build`` makes.

    Raises:
        UserError: If the global random states are reset meanwhile, naming the class.
    """
    watch = StateWatch()
    built = build()
    if names := watch.reset():
        raise _refusal(names, _culprit(names[0], build) or "a part", "is built")
    return built


class SeedingGuard(Callback):
    """Refuses a module that resets the global random states on its first batch, before a step.

    The first batch of training, and of validation and test, where parts are in evaluation mode.
    """

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._watch: StateWatch | None = None
        self._again: Callable[[], object] = lambda: None

    def _begin(self, module: LightningModule, step: str, batch: object, index: int) -> None:
        if step not in self._seen:
            self._seen.add(step)
            self._watch = StateWatch()
            self._again = lambda: getattr(module, step)(batch, index)

    def _end(self, module: LightningModule) -> None:
        watch, self._watch = self._watch, None
        if watch is not None and (names := watch.reset()):
            raise _refusal(
                names, _culprit(names[0], self._again) or type(module).__name__, "is called"
            )

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._begin(pl_module, "training_step", batch, batch_idx)

    @override
    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end(pl_module)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        self._end(pl_module)  # where the module optimizes by itself

    @override
    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        self._begin(pl_module, "validation_step", batch, batch_idx)

    @override
    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        self._begin(pl_module, "test_step", batch, batch_idx)

    on_validation_batch_end = on_train_batch_end
    on_test_batch_end = on_train_batch_end


def _refusal(names: list[str], part: str, when: str) -> UserError:
    return UserError(
        f"{part} seeds the global random state of {' and '.join(names)} when it {when}, so that "
        "all seeds would be one: draw from a torch.Generator of its own, or inside of "
        "torch.random.fork_rng()"
    )


def _culprit(name: str, run: Callable[[], object]) -> str:
    """Run again, and return the class whose method resets a state for good, with file and line.

    Args:
        name: The state.
        run: What has reset it.

    Returns:
        The class; empty if it does not happen again, or no method is at work.
    """
    seed_global("culprit")  # or seeding by the same number once more would go unseen
    watch = StateWatch()
    owners: list[str] = []

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal watch
        if event not in ("return", "c_return") or (owners and name != "torch"):
            return
        if not watch.reset(name):
            owners.clear()  # restored; which is looked for where looking takes no time
            watch = watch if name == "torch" else StateWatch()  # what was drawn is not sought again
        elif not owners:
            owners.append(_owner(frame))

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        with contextlib.suppress(Exception):  # a step is not everywhere what the loop makes of it
            run()
    finally:
        sys.setprofile(before)
    return "".join(owners)


def _owner(frame: FrameType | None) -> str:
    """Return the class of the innermost method outside of libraries, with file and line."""
    while frame is not None:
        owner = frame.f_locals.get("self")
        library = str(frame.f_globals.get("__name__")).partition(".")[0]
        if owner is not None and library not in _LIBRARIES:
            return f"{type(owner).__name__} ({frame.f_code.co_filename}:{frame.f_lineno})"
        frame = frame.f_back
    return ""
