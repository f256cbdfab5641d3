"""Common random numbers for parts that draw from the global random states, such as dropout."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from pretzel.rng import seed_global


class SeededSteps(Callback):
    """Seed the global random states by purpose and step, on each process apart.

    What a training step draws then depends on the seed and its number alone: not on how many
    numbers building the model, the steps before, or a validation have drawn, which arms of an
    ablation seldom share.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        num_batches = trainer.fit_loop.epoch_loop.total_batch_idx
        seed_global(self.seed, "training", trainer.global_rank, num_batches)

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        seed_global(self.seed, "validation", trainer.global_rank, trainer.global_step)
