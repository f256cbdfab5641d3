"""Learning-rate schedules over the whole run, whose length the trainer knows."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

from pretzel.errors import UserError


class Schedule(ABC):
    """A factor on the learning rate of every parameter group.

    Attributes:
        laws: Module of the laws of all schedules.
    """

    laws: ClassVar[str] = "pretzel.training.laws"

    @abstractmethod
    def factor(self, step: int, total_steps: int) -> float:
        """Return the factor of an optimizer step, counted from 0."""


class Constant(Schedule):
    """The learning rate as it is."""

    def factor(self, step: int, total_steps: int) -> float:
        """Return 1."""
        return 1.0


class WarmupCosine(Schedule):
    """Linear warm-up, then half a cosine down to a final factor.

    Args:
        warmup_steps: Steps until the full learning rate.
        final_factor: Factor at the last step (1e-4 -> 1e-6 in the paper: 0.01).

    Raises:
        UserError: If ``warmup_steps`` is negative or ``final_factor`` is outside [0, 1].
    """

    def __init__(self, warmup_steps: int = 0, final_factor: float = 0.01) -> None:
        if warmup_steps < 0:
            raise UserError(f"warmup_steps must be 0 or positive, got {warmup_steps}")
        if not 0 <= final_factor <= 1:
            raise UserError(f"final_factor must be in [0, 1], got {final_factor}")
        self.warmup_steps = warmup_steps
        self.final_factor = final_factor

    def factor(self, step: int, total_steps: int) -> float:
        """Return the factor of a step."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, total_steps - self.warmup_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        return self.final_factor + (1 - self.final_factor) * cosine


def with_schedule(
    optimizer: Optimizer, schedule: Schedule, trainer: Trainer
) -> OptimizerLRScheduler:
    """Return an optimizer and its schedule, stepped at each step, as Lightning takes them."""
    total_steps = int(trainer.estimated_stepping_batches)
    scheduler = LambdaLR(optimizer, lambda step: schedule.factor(step, total_steps))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def one_cycle(module: LightningModule, lr: float, weight_decay: float) -> OptimizerLRScheduler:
    """Return AdamW of a module's parameters, in one cycle over the run with its peak at ``lr``."""
    optimizer = AdamW(module.parameters(), lr=lr, weight_decay=weight_decay)
    total_steps = int(module.trainer.estimated_stepping_batches)
    scheduler = OneCycleLR(optimizer, lr, total_steps, pct_start=0.1)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
