"""Lightning's training loop, continued by another process exactly where a checkpoint was written.

Lightning's own restart leaves out random states, what has been logged, and a validation that was
due at the step of the checkpoint; from the last step of a run it skips validation and the end of
training. Here a checkpoint says what the loop still owed when it was written, and another process
begins with that. A resumed run is then the uninterrupted one, bit by bit on a CPU, if

- the data continue behind the batches that were consumed (:mod:`datamodules` do),
- gradients are not being accumulated over batches at that moment: they are in no checkpoint, and
- it was not written in ``on_train_epoch_end`` (ModelCheckpoint without validation): Lightning then
  calls the hooks of that moment twice, and leaves out a step of plateau schedulers.

Checkpoints are read with ``weights_only=True``, so everything is in plain types.
"""

import time
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loops.fetchers import _DataFetcher
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.loop import _Loop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.trainer.states import TrainerFn, TrainerStatus
from typing_extensions import override

from pretzel.errors import UserError
from pretzel.rng import global_states, set_global_states
from pretzel.runs.logged_metrics import logged_state, restore_logged

_KEPT_STEPS = 1000


class Owed(StrEnum):
    """The rest of a batch that was still to be done when a checkpoint was written."""

    BATCH_END = "batch_end"
    """Written in ``on_train_batch_end`` (ModelCheckpoint): its values are not logged yet."""
    STEP_END = "step_end"
    """Written behind the batch: a validation, if one is due."""


class ExactEpochLoop(_TrainingEpochLoop):
    """Runs the batches of an epoch; knows where it stands.

    Attributes:
        after_step: Called behind each batch, before the validation that may be due, with whether
            one is: the best moment for a checkpoint.
        owed: The rest of a step with which a resumed run begins.
        is_working: Whether a batch is being fetched or trained on.
        step_seconds: Wall time of the last optimizer steps, data included, validation not.
    """

    def __init__(self, trainer: Trainer, min_steps: int | None = None, max_steps: int = -1) -> None:
        super().__init__(trainer, min_steps, max_steps)
        self.after_step: Callable[[bool], None] | None = None
        self.owed: Owed | None = None
        self.is_working = False
        self.step_seconds: deque[float] = deque(maxlen=_KEPT_STEPS)
        self._seconds = 0.0
        self._is_behind_step = False
        self._saved: dict[str, Any] | None = None

    @property
    def accumulates(self) -> bool:
        """Whether gradients wait for further batches."""
        return self._should_accumulate()

    @property
    @override
    def done(self) -> bool:
        return self.owed is None and super().done

    @override
    def reset(self) -> None:
        if self.owed is not None and self._restarting:
            # Nothing is half done: the counts stay, and what follows is as in the first process.
            _Loop.restarting.fset(self, False)  # type: ignore[attr-defined]
            self.trainer.fit_loop._restarting = False
        else:
            super().reset()
        if self._saved is not None:  # behind all hooks that may have drawn numbers or logged
            restore_logged(self.trainer, self._saved["logged"])
            set_global_states(self._saved["random"], self.trainer.strategy.root_device)
            self._saved = None

    @override
    def advance(self, data_fetcher: _DataFetcher) -> None:
        owed, self.owed = self.owed, None
        if owed is Owed.BATCH_END:
            self.trainer._logger_connector.on_batch_end()
            self.trainer._logger_connector.update_train_step_metrics()
        if owed is not None:
            return
        begun = time.perf_counter()
        self.is_working = True
        try:
            super().advance(data_fetcher)
        finally:
            self.is_working = False
        self._seconds += time.perf_counter() - begun
        if not self.accumulates:
            self.step_seconds.append(self._seconds)
            self._seconds = 0.0

    @override
    def on_advance_end(self, data_fetcher: _DataFetcher) -> None:
        if self.after_step is not None:
            self._is_behind_step = True
            try:
                self.after_step(self._should_check_val_fx(data_fetcher))
            finally:
                self._is_behind_step = False
        super().on_advance_end(data_fetcher)

    @override
    def on_save_checkpoint(self) -> dict[str, Any]:
        state = super().on_save_checkpoint()
        trainer = self.trainer
        if trainer.state.fn == TrainerFn.FITTING and trainer.state.status == TrainerStatus.RUNNING:
            own = {
                "random": global_states(trainer.strategy.root_device),
                "logged": logged_state(trainer),
            }
            state["exact"] = {"owed": self._position(), "ranks": gathered(trainer, own)}
        return state

    @override
    def on_load_checkpoint(self, state_dict: dict[str, Any]) -> None:
        super().on_load_checkpoint(state_dict)
        exact = state_dict.get("exact")
        if exact is None:
            return
        self.owed = None if exact["owed"] is None else Owed(exact["owed"])
        if self.owed is Owed.BATCH_END:
            self.batch_progress.increment_completed()
        ranks = exact["ranks"]
        if len(ranks) == self.trainer.world_size:
            self._saved = ranks[self.trainer.global_rank]

    def _position(self) -> str | None:
        if self._is_behind_step:
            return Owed.STEP_END.value
        total: Any = self.batch_progress.total
        in_hook = total.ready == total.processed == total.completed + 1
        return Owed.BATCH_END.value if self.is_working and in_hook else None


class ExactFitLoop(_FitLoop):
    """Runs the epochs, and the rest of the last step where that is still owed."""

    @property
    @override
    def done(self) -> bool:
        loop = self.epoch_loop
        owes = isinstance(loop, ExactEpochLoop) and loop.owed is not None
        return not owes and super().done

    @override
    def setup_data(self) -> None:
        try:
            super().setup_data()
        except ValueError as error:
            if "val_check_interval" not in str(error):
                raise
            raise UserError(
                f"trainer.val_check_interval: must be at most the {self.max_batches:g} batches of "
                "an epoch, or count over epochs, by trainer.check_val_every_n_epoch: null, got "
                f"{self.trainer.val_check_interval}"
            ) from error


def make_exact(trainer: Trainer) -> ExactEpochLoop:
    """Give a trainer that has not run yet the loops that can be continued exactly.

    Returns:
        Its loop over batches.
    """
    old = trainer.fit_loop
    if isinstance(old.epoch_loop, ExactEpochLoop):
        return old.epoch_loop
    loop = ExactEpochLoop(trainer, old.epoch_loop.min_steps, old.epoch_loop.max_steps)
    trainer.fit_loop = ExactFitLoop(trainer, old.min_epochs, old.max_epochs)
    trainer.fit_loop.epoch_loop = loop
    return loop


def gathered(trainer: Trainer | None, own: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the state of every process; all of them save a checkpoint together."""
    if trainer is None or trainer.world_size == 1:
        return [own]
    states = [own] * trainer.world_size
    torch.distributed.all_gather_object(states, own)
    return states
