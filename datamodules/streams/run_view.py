"""The view that data have of the run that they belong to."""

from dataclasses import dataclass
from typing import final

from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn


@final
@dataclass(frozen=True)
class RunView:
    """Reads a trainer; without one the data are used by themselves, in one process.

    Attributes:
        trainer: The trainer of the run, if there is one.
    """

    trainer: Trainer | None

    @property
    def rank(self) -> int:
        """Number of this process."""
        return 0 if self.trainer is None else self.trainer.global_rank

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return 1 if self.trainer is None else self.trainer.world_size

    @property
    def is_training(self) -> bool:
        """Whether the run is a fit."""
        return self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING

    @property
    def repeats_batches(self) -> bool:
        """Whether every epoch has the batches of the first (``overfit_batches``)."""
        # a helper of Lightning's sets it
        return self.trainer is not None and bool(self.trainer.overfit_batches)  # type: ignore[attr-defined]

    @property
    def consumed_batches(self) -> int:
        """Number of batches that training has consumed, all epochs together."""
        assert self.trainer is not None
        # Unlike `completed`, `processed` is already counted when a checkpoint is written at the
        # end of a batch, and unlike `ready` it does not count a batch that was interrupted.
        total = self.trainer.fit_loop.epoch_loop.batch_progress.total
        processed: int = total.processed  # type: ignore[attr-defined]  # declared as its base class
        return processed

    def steps(self, steps_per_epoch: int) -> int:
        """Return the batches of an epoch, of which the trainer may want fewer."""
        limit = None if self.trainer is None else self.trainer.limit_train_batches
        if isinstance(limit, float):
            return max(1, int(steps_per_epoch * limit))
        return max(1, min(steps_per_epoch, limit or steps_per_epoch))
