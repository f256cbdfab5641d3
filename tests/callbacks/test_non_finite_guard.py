"""A loss that is not finite stops the run before it reaches the weights."""

from pathlib import Path

import pytest
from torch import Tensor
from world import KnownData, Recaller, make_trainer

from callbacks import NonFiniteGuard
from pretzel.errors import UserError
from pretzel.sequence.document import DocumentBatch


class Diverging(Recaller):
    """Its loss is not finite from the third batch on."""

    value = float("nan")

    def training_step(self, batch: DocumentBatch, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) + (self.value if batch_idx >= 2 else 0.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_names_the_step_and_keeps_the_weights_finite(tmp_path: Path, value: float) -> None:
    module = Diverging()
    module.value = value
    trainer = make_trainer(tmp_path, [NonFiniteGuard()], max_steps=5, limit_val_batches=0)
    with pytest.raises(UserError, match=f"loss is {value} at step 2 .epoch 0, batch 2."):
        trainer.fit(module, datamodule=KnownData())
    assert trainer.global_step == 2
    assert all(parameter.isfinite().all() for parameter in module.parameters())


def test_lets_finite_losses_pass(tmp_path: Path) -> None:
    module = Recaller()
    trainer = make_trainer(tmp_path, [NonFiniteGuard()], max_steps=5, limit_val_batches=0)
    trainer.fit(module, datamodule=KnownData())
    assert trainer.global_step == 5


def test_looks_every_n_batches(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, [NonFiniteGuard(3)], max_steps=5, limit_val_batches=0)
    with pytest.raises(UserError, match="loss is nan at step 3"):
        trainer.fit(Diverging(), datamodule=KnownData())


def test_refuses_zero() -> None:
    with pytest.raises(UserError, match="every_n_batches must be at least 1, got 0"):
        NonFiniteGuard(0)
