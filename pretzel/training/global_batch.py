"""Optimizer steps whose loss is a mean over the global batch: all rows of all processes."""

from typing import ClassVar

import torch
from lightning.pytorch import LightningModule
from torch.distributed.tensor import DTensor

from pretzel.runs.accumulation import check_accumulation, most_accumulated
from pretzel.typing import Float, Tensor


class GlobalBatchModule(LightningModule):
    """A module that takes an optimizer step on each batch, and its loss over the global batch.

    How rows are dealt out to processes then changes a step by no more than rounding.
    """

    instead_of_accumulation: ClassVar[str] = (
        "set data.init_args.batch_size to the documents of a whole step"
    )

    def setup(self, stage: str) -> None:
        """Raise a UserError if the Trainer would accumulate the gradients of several batches."""
        if stage == "fit":
            check_accumulation(self, most_accumulated(self.trainer))

    def global_mean(
        self, values: Float[Tensor, " k"], weights: Float[Tensor, " k"] | None = None
    ) -> tuple[Tensor, float]:
        """Return the share of this process in the mean over the global batch, and its weight.

        Args:
            values: What the rows of this process contribute.
            weights: Weight of each value; None for 1, so that the weight of all is their number.
        """
        if weights is None:
            weights = torch.ones(len(values), device=values.device)
        total = weights.sum()
        world = 1 if self._trainer is None else self.trainer.world_size
        if world > 1:
            total = self.trainer.strategy.reduce(total, reduce_op="sum")
        share = (values * weights).sum()
        # Lightning averages gradients over processes, hence the factor of their number.
        return share * world / total.where(total > 0, 1.0), float(total)

    def touching_all(self, loss: Tensor) -> Tensor:
        """Return a loss of which every parameter that trains has a gradient, if only of zeros.

        Every process must take part in every gradient, whatever its rows hold (DDP). Weights that
        are dealt out belong to layers, all of which run in every process.
        """
        trainable = [p for p in self.parameters() if p.requires_grad and not isinstance(p, DTensor)]
        return loss + 0.0 * sum(p.sum() for p in trainable)
