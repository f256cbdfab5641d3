"""A project that draws from every random state there is: what a resumed run must get right.

Imported by ``class_path``, like a user's own parts.
"""

import random
import time

import numpy as np
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric

from pretzel.rng import stream

EPOCH = 10


class Noisy(LightningModule):
    """Dropout, batch statistics, draws in training and validation, means over epochs."""

    def __init__(self, seed: int = 0, lr: float = 0.05, delay: float = 0.0) -> None:
        super().__init__()
        self.seed, self.lr, self.delay = seed, lr, delay
        self.net = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1)
        )
        self.error = MeanMetric()

    def loss(self, batch: Tensor) -> Tensor:
        noise = torch.randn(len(batch), 1) * random.random() + float(np.random.randn())
        return (self.net(batch) - batch.sum(1, keepdim=True) + 0.1 * noise).square().mean()

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        time.sleep(self.delay)
        loss = self.loss(batch)
        self.error.update(loss.detach())
        self.log("train/loss", loss)
        self.log("train/mean", loss, on_step=False, on_epoch=True)
        self.log("train/error", self.error, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        time.sleep(self.delay)
        self.log("val/loss", self.loss(batch))

    def test_step(self, batch: Tensor, batch_idx: int) -> None:
        time.sleep(self.delay)
        self.log("test/loss", self.loss(batch))

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
        decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99)
        watched = {"scheduler": plateau, "monitor": "train/mean", "interval": "epoch"}
        return [optimizer], [{"scheduler": decay, "interval": "step"}, watched]


class Ordered:
    """Batches that follow from their number, augmented, behind those that were consumed."""

    def __init__(self, seed: int, consumed) -> None:
        self.seed, self.consumed = seed, consumed

    def __len__(self) -> int:
        return EPOCH

    def __iter__(self):
        first = self.consumed()
        for number in range(first, (first // EPOCH + 1) * EPOCH):
            batch = torch.randn(8, 4, generator=stream(self.seed, "batch", number))
            yield batch + 0.1 * torch.randn(8, 4) + 0.1 * float(np.random.randn())  # augmented

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Follow the trainer's count."""


class OrderedData(LightningDataModule):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed

    def train_dataloader(self) -> Ordered:
        progress = self.trainer.fit_loop.epoch_loop.batch_progress
        return Ordered(self.seed, lambda: progress.total.processed)

    def val_dataloader(self) -> DataLoader[Tensor]:
        return self._few("val")

    def test_dataloader(self) -> DataLoader[Tensor]:
        return self._few("test")

    def _few(self, split: str) -> DataLoader[Tensor]:
        return DataLoader(torch.randn(3, 8, 4, generator=stream(self.seed, split)), batch_size=None)


class Counts(Callback):
    """Logs the number of validations and of epochs begun and ended, which a resume must keep."""

    def __init__(self) -> None:
        self.counts = {"validations": 0, "begun": 0, "ended": 0}

    def state_dict(self) -> dict[str, int]:
        return dict(self.counts)

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.counts = dict(state_dict)

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        self.counts["begun"] += 1

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        self.counts["ended"] += 1
        for name, count in self.counts.items():
            pl_module.log(f"count/{name}", float(count))

    def on_validation_epoch_end(self, trainer, pl_module) -> None:
        self.counts["validations"] += trainer.state.fn == "fit"
        pl_module.log("val/count", float(self.counts["validations"]))


class Knowing(Callback):
    """Knows what its figures rest on."""

    def __init__(self) -> None:
        self.facts: dict[str, dict[str, int]] = {}

    def on_train_end(self, trainer, pl_module) -> None:
        self.facts["train/loss"] = {"n": trainer.global_step}

    def on_test_end(self, trainer, pl_module) -> None:
        self.facts["test/loss"] = {"n": trainer.datamodule.rows}
