"""Metrics of images: FID beside other ways to compute it, memory, share of a training run.

    python -m benchmarks.metrics           # 10,000 images, 2,048 features
    python -m benchmarks.metrics --quick   # seconds: does everything compute what it should?

Arms run in one process, in turn, on one thread, from the features on. Peak memory is what a metric
adds to a fresh process that has the features. The share of evaluation is that of the base
configuration at its defaults, from the CPU time of its steps and of one validation.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from scipy.linalg import sqrtm
from torchmetrics.image.fid import FrechetInceptionDistance
from typing_extensions import override

from benchmarks import measure, memory
from benchmarks.measure import Task
from callbacks.feature_extractors import ModuleFeatures
from callbacks.feature_metrics.base import FeatureMetric
from callbacks.feature_metrics.fid import FID
from callbacks.feature_metrics.kid import KID
from callbacks.feature_metrics.precision_recall import PrecisionRecall
from pretzel.__main__ import main as pretzel
from pretzel.runs.config.overlay import read
from pretzel.typing import Tensor

BASE = Path(__file__).parents[1] / "ablations" / "base" / "easy_vqa.yaml"
CPU = torch.device("cpu")


def images(n: int, features: int, seed: int) -> Tensor:
    """Return images of which the first pixels are the features."""
    made = torch.randn(n, features, generator=torch.Generator().manual_seed(seed))
    made = made * torch.linspace(0.1, 1, features) + seed
    return made[:, None, None].expand(-1, 3, -1, -1)


class Known(torch.nn.Module):
    """Gives the features of such images."""

    num_features: int  # torchmetrics asks for it

    @override
    def forward(self, images: Tensor) -> Tensor:
        return images[:, 0, 0]


def extractor() -> ModuleFeatures:
    """Return the extractor of these features."""
    return ModuleFeatures(Known(), "known")


def filled(metric: FeatureMetric, n: int, features: int) -> FeatureMetric:  # type: ignore[type-arg]
    """Return a metric that has taken in both sets."""
    for batch in images(n, features, 0).split(500):  # type: ignore[no-untyped-call]
        metric.update_real(batch)
    for batch in images(n, features, 1).split(500):  # type: ignore[no-untyped-call]
        metric.update(batch, [""] * len(batch))
    return metric


def fid_task(n: int, features: int) -> Task:
    """Return the task of FID's arms."""
    real, generated = images(n, features, 0), images(n, features, 1)

    def ours() -> Tensor:
        return torch.tensor(filled(FID(extractor()), n, features).compute()["fid_known"])

    def torchmetrics() -> Tensor:
        network = Known()
        network.num_features = features
        metric = FrechetInceptionDistance(network, normalize=True)
        for is_real, rows in ((True, real), (False, generated)):
            for batch in rows.split(500):  # type: ignore[no-untyped-call]
                metric.update(batch, real=is_real)
        value: Tensor = metric.compute()
        return value

    def scipy() -> Tensor:
        a, b = (x[:, 0, 0].double().numpy() for x in (real, generated))
        c, d = np.cov(a.T), np.cov(b.T)
        step = a.mean(0) - b.mean(0)
        value = step @ step + np.trace(c + d - 2 * sqrtm(c @ d)).real
        return torch.tensor(value, dtype=torch.float32)

    arms = {"ours": ours, "torchmetrics": torchmetrics, "scipy's sqrtm": scipy}
    equal = {"torchmetrics": 1e-4, "scipy's sqrtm": 1e-4}
    return Task(name=f"FID, {n:,} images, {features:,} features", arms=arms, equal=equal)


def added_memory(name: str, n: int, features: int) -> float:
    """Return what computing a metric adds to a process that has the features, in MiB."""
    metric = KID(extractor()) if name == "KID" else PrecisionRecall(extractor())
    filled(metric, n, features)
    return memory.measure(metric.compute)


class Clock(Callback):
    """CPU seconds of the steps of a fit and of its validations."""

    steps: float = 0.0
    validation: float = 0.0

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        if batch_idx == 1:  # the first compiles and loads
            Clock.steps = -time.process_time()

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        now = time.process_time()
        Clock.steps += now
        Clock.validation = -now

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Clock.validation += time.process_time()


def share_of_evaluation(steps: int) -> tuple[float, float, float]:
    """Return seconds of a step and of a validation, and the share of validations at the defaults.

    Args:
        steps: Steps that are timed.
    """
    trainer = read(str(BASE)).values["trainer"]
    with tempfile.TemporaryDirectory() as folder:
        change = {
            "max_steps": steps,
            "val_check_interval": steps,
            "default_root_dir": folder,
            "enable_progress_bar": False,
            "callbacks+": [{"class_path": "benchmarks.metrics.Clock"}],
        }
        path = Path(folder) / "timed.yaml"
        path.write_text(yaml.safe_dump({"trainer": change}))
        assert pretzel(["fit", "-c", str(BASE), "-c", str(path)]) == 0
    from benchmarks.metrics import Clock as timed  # that of the parser, where this file is __main__

    step = timed.steps / (steps - 1)
    validations = trainer["max_steps"] // trainer["val_check_interval"]
    evaluation = validations * timed.validation
    return step, timed.validation, evaluation / (evaluation + trainer["max_steps"] * step)


def main(args: Sequence[str] | None = None) -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--features", type=int, default=2_048)
    parser.add_argument("--steps", type=int, default=60, help="steps of training that are timed")
    parser.add_argument("--only", choices=("fid", "memory", "share"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(args)
    torch.set_num_threads(1)
    n, features = (200, 16) if options.quick else (options.images, options.features)
    if options.child:
        print(added_memory(options.child, n, features))
        return 0
    if options.only in (None, "fid"):
        for one in measure.run(fid_task(n, features), 1 if options.quick else options.rounds, CPU):
            print(f"{one.task}: {one.arm} {one.seconds:.2f} s, {one.cpu} of the CPU time of "
                  f"{one.other} ({one.other_seconds:.2f} s)", flush=True)  # fmt: skip
    if options.only in (None, "memory"):
        for name in ("KID", "precision and recall"):
            command = [sys.executable, "-m", "benchmarks.metrics", "--child", name,
                       "--images", str(n), "--features", str(features)]  # fmt: skip
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            held = 2 * n * features * 4 / 2**20
            print(f"{name}, {n:,} images: {float(done.stdout.split()[-1]):.0f} MiB beside "
                  f"{held:.0f} MiB of features", flush=True)  # fmt: skip
    if options.only in (None, "share") and not options.quick:
        step, validation, share = share_of_evaluation(options.steps)
        print(f"base configuration: {step:.3f} s a step, {validation:.1f} s a validation, "
              f"{share:.1%} of a run at its defaults")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
