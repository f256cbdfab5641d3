"""A small real project: least squares by gradient descent, with parts chosen by class_path.

The tests' plug-in: imported by ``class_path`` like any user's module.
"""

import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from pretzel.errors import NotApplicable, UserError
from pretzel.rng import stream


class Features(ABC):
    """Maps inputs to features."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor: ...


class Linear(Features):
    def __init__(self, scale: float = 1.0, offset: float = 0.0) -> None:
        self.scale, self.offset = scale, offset

    def __call__(self, x: Tensor) -> Tensor:
        return self.scale * x + self.offset


class Cubic(Features):
    """Shares ``scale`` with Linear: what a naive overlay would leave behind."""

    def __init__(self, scale: float = 1.0, power: int = 3) -> None:
        if power < 1:
            raise ValueError(f"power must be at least 1, got {power}")
        self.scale, self.power = scale, power

    def __call__(self, x: Tensor) -> Tensor:
        return self.scale * x**self.power


class Broken(Features):
    """Fails after some steps, like an arm that diverges."""

    def __call__(self, x: Tensor) -> Tensor:
        raise RuntimeError("the arm exploded")


class Nothing(Features):
    """What some stage cannot be done with."""

    def __init__(self) -> None:
        raise NotApplicable("nothing has no features, so this stage does not exist for it")

    def __call__(self, x: Tensor) -> Tensor:
        return x


class LeastSquares(LightningModule):
    instead_of_accumulation = "set data.init_args.rows"

    def __init__(
        self,
        features: Features,
        lr: float = 0.05,
        size: int = 3,
        seed: int = 0,
        weights: str | None = None,
        delay: float = 0.0,
    ) -> None:
        super().__init__()
        self.features, self.lr, self.delay = features, lr, delay
        self.seed = seed
        self.weight = torch.nn.Parameter(torch.randn(size, generator=stream(seed, "weight")))
        if weights is not None:
            self.load_state_dict(load_file(weights))

    def loss(self, batch: list[Tensor]) -> Tensor:
        x, y = batch
        return ((self.features(x) @ self.weight - y) ** 2).mean()

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        time.sleep(self.delay)
        while Path("hold").exists():  # the test says when to go on
            time.sleep(0.02)
        loss = self.loss(batch)
        self.log("train/loss", loss)
        return loss

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("test/loss", self.loss(batch))
        self.log("test/seed", float(self.seed))
        if isinstance(self.features, Cubic):
            self.log("test/cubic", 1.0)

    def counted_samples(self, data: object) -> dict[str, float]:
        return {"rows": float(data.rows)} if isinstance(data, Line) else {}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr)

    def export(self, path: Path) -> None:
        save_file(self.state_dict(), path)


class TestNorm(Callback):
    """A metric that may be added when everything is trained."""

    __test__ = False
    evaluation_only = True

    def on_test_epoch_end(self, trainer, pl_module) -> None:
        pl_module.log("test/norm", pl_module.weight.norm())


class Near(Callback):
    """Whether each row of the test is predicted within a distance; it imports nothing of ours."""

    evaluation_only = True

    def __init__(self, distance: float = 0.5) -> None:
        self.distance = distance
        self.sample_results: list[dict[str, object]] = []

    def on_test_epoch_start(self, trainer, pl_module) -> None:
        self.sample_results = []

    def on_test_batch_end(self, trainer, pl_module, outputs, batch, *args) -> None:
        x, y = batch
        for error in (pl_module.features(x) @ pl_module.weight - y).abs():
            near = {"test/near": float(error < self.distance), "test/error": error}
            row = f"row {len(self.sample_results)}"
            told = {"error": f"{error:.3f}"}
            self.sample_results.append({"item": row, "values": near, "texts": told})

    def on_test_epoch_end(self, trainer, pl_module) -> None:
        for name in ("test/near", "test/error"):
            values = [float(one["values"][name]) for one in self.sample_results]
            pl_module.log(name, sum(values) / len(values))


class Line(LightningDataModule):
    """Points on a plane plus seeded noise."""

    def __init__(self, seed: int = 0, rows: int = 32, size: int = 3, shards: str = "") -> None:
        super().__init__()
        self.seed, self.rows, self.size, self.shards = seed, rows, size, shards

    def setup(self, stage: str) -> None:
        if self.shards:
            raise UserError(f"data.init_args.shards: {self.shards}: no such shard")

    def _loader(self, purpose: str) -> DataLoader[tuple[Tensor, ...]]:
        draw = stream(self.seed, purpose)
        x = torch.randn(self.rows, self.size, generator=draw)
        y = x.sum(1) + 0.1 * torch.randn(self.rows, generator=draw)
        return DataLoader(TensorDataset(x, y), batch_size=8)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return self._loader("train")

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return self._loader("test")


class Filed(Line):
    """The same, said to be read from files."""

    files: ClassVar[dict[str, list[str]]] = {"val": ["val.tar", "pipe:x"], "test": ["pipe:x"]}

    def split_files(self) -> dict[str, list[str]]:
        return self.files


class Telling(LeastSquares):
    """Says what it logs."""

    def metric_names(self) -> set[str]:
        return {"train/loss", "test/loss", "test/seed", "val/*_loss"}


class Renamed(Telling):
    def __init__(self, features: Features) -> None:
        super().__init__(features)


class Silent(Telling):
    """Might log what the class above knows nothing of."""

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("test/other", self.loss(batch))
