"""Guard that stops a run whose loss is NaN or infinite."""

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from callbacks.evaluation import check_counts
from pretzel.errors import UserError


class NonFiniteGuard(Callback):
    """Stop before the backward pass of a loss that is NaN or infinite.

    The weights of that moment are still finite, and so are all checkpoints. Reading the loss
    waits for the device; on a GPU a larger ``every_n_batches`` waits less often, and then a
    non-finite loss may have reached the weights of the last batches.

    Args:
        every_n_batches: Number of training batches between looks at the loss.

    Raises:
        UserError: If the loss is not finite, or the argument is below 1.
    """

    def __init__(self, every_n_batches: int = 1) -> None:
        check_counts(self, every_n_batches=every_n_batches)
        self.every_n_batches = every_n_batches

    def metric_names(self) -> set[str]:
        """Return nothing: it logs no metric."""
        return set()

    @override
    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        batch = trainer.fit_loop.epoch_loop.batch_idx
        if batch % self.every_n_batches == 0 and not bool(loss.isfinite().all()):
            raise UserError(
                f"the training loss is {loss.item()} at step {trainer.global_step} (epoch "
                f"{trainer.current_epoch}, batch {batch}); its gradient has not been applied. "
                "A smaller learning rate, gradient clipping or a longer warm-up usually helps."
            )
