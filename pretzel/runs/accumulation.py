"""Gradient accumulation over batches, refused for modules whose batches are whole steps.

Lightning averages the losses of the batches it accumulates. Where a loss is a mean over images or
tokens, a batch of one document then weighs as much as a batch of three.
"""

from typing import ClassVar, Protocol, runtime_checkable

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler

from pretzel.errors import UserError
from pretzel.runs.config.overlay import Config

KEY = ("trainer", "accumulate_grad_batches")


@runtime_checkable
class BatchIsStep(Protocol):
    """A module whose loss is a mean over the whole batch of an optimizer step.

    Attributes:
        instead_of_accumulation: Advice: which arguments to set, and to what.
    """

    instead_of_accumulation: ClassVar[str]


def check_accumulation(module: object, num_batches: int, config: Config | None = None) -> None:
    """Refuse the accumulation of batches for a module, or class, whose batches are steps.

    Args:
        module: What trains.
        num_batches: Batches that the Trainer accumulates.
        config: Configuration that says so, whose file the message then names.

    Raises:
        UserError: Naming the arguments that are exact.
    """
    if num_batches == 1 or not isinstance(module, BatchIsStep):
        return
    name = module.__name__ if isinstance(module, type) else type(module).__name__
    source = None if config is None else config.source(KEY)
    raise UserError(
        f"{f'{source}: ' if source else ''}{'.'.join(KEY)} must be 1 for {name}, got "
        f"{num_batches}: its loss is a mean over the whole batch of a step, and Lightning would "
        f"average the means of uneven batches; {module.instead_of_accumulation}"
    )


def most_accumulated(trainer: Trainer) -> int:
    """Return the largest number of batches that a Trainer accumulates in any epoch."""
    numbers = [trainer.accumulate_grad_batches]
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, GradientAccumulationScheduler):
            numbers += callback.scheduling.values()
    return max(numbers)
