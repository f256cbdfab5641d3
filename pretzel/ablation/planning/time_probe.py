"""Estimates a run's time by a few steps in a fresh process (``python -m`` this module).

The process reads a resolved configuration as JSON and prints the seconds in its last line.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

from pretzel.ablation.planning.plan import Plan, PlannedRun

_STEPS = 10
_WARM = 3  # the first ones are slower


def probe_all(plan: Plan, runs: Iterable[PlannedRun]) -> dict[str, float]:
    """Return the seconds of a run's training by family, estimated by its first steps.

    One run of each family is tried, and that is said on standard error; those that fail are left
    out. The stages that it starts from need not have run.
    """
    one_each = {run.family: run for run in runs}
    seconds: dict[str, float] = {}
    for number, (family, run) in enumerate(one_each.items()):
        print(f"probing {run.name} ({number + 1} of {len(one_each)})", file=sys.stderr, flush=True)
        process = _first_steps(plan, run)
        if process.returncode:
            lines = process.stderr.strip().splitlines() or [f"exit code {process.returncode}"]
            error = f"{run.name}: its first steps failed: {lines[-1]}"
            print(error, file=sys.stderr, flush=True)
        else:  # the module's own prints come first
            seconds[family] = float(process.stdout.strip().splitlines()[-1])
    return seconds


def _first_steps(plan: Plan, run: PlannedRun) -> subprocess.CompletedProcess[str]:
    from pretzel.ablation.gridfile.run_config import without

    weights = [plan.grid.output / name / "weights.safetensors" for name in run.needs]
    missing = {str(path) for path in weights if not path.exists()}
    return subprocess.run(
        [sys.executable, "-m", "pretzel.ablation.planning.time_probe"],
        input=json.dumps(without(run.config, missing)),
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
        check=False,
    )


def estimate(config: dict[str, Any], started: float) -> float:
    """Return the seconds of a training; a few steps are run in a folder that is thrown away.

    The process has started at a time of :func:`time.monotonic`.
    """
    from jsonargparse import Namespace
    from lightning.pytorch import Callback, Trainer

    from pretzel.ablation.gridfile.run_config import placed
    from pretzel.runs.cli import RunCLI

    class Clock(Callback):
        def __init__(self) -> None:
            self.times: list[float] = []

        def on_train_batch_end(self, trainer: Trainer, *args: object) -> None:
            self.times.append(time.monotonic())

    class ProbeCLI(RunCLI):
        def _run_subcommand(self, subcommand: str) -> None:
            """Run nothing: the probe fits with a clock."""

    # validation and checkpoints are left out: the estimate says that it is of training alone
    with tempfile.TemporaryDirectory() as folder:
        config = placed(config, Path(folder))
        limits = {"max_steps": _STEPS, "limit_val_batches": 0, "num_sanity_val_steps": 0}
        fit = {**config, "trainer": {**config["trainer"], **limits}}
        cli = ProbeCLI(Namespace({"subcommand": "fit", "fit": fit}))  # type: ignore[no-untyped-call]
        clock = Clock()
        cli.trainer.callbacks.append(clock)  # type: ignore[attr-defined]
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    trainer, times = config["trainer"], clock.times
    steps = trainer["max_steps"]
    if steps is None or steps < 0:
        epochs = 1000 if trainer["max_epochs"] is None else trainer["max_epochs"]
        steps = epochs * float(cli.trainer.num_training_batches)
    else:
        steps *= cli.trainer.accumulate_grad_batches  # batches, as the clock counts them
    warm = times[min(_WARM, len(times) - 2) :]
    step = statistics.median(after - before for before, after in pairwise(warm))
    return float(times[0] - started + step * steps)


if __name__ == "__main__":
    began = time.monotonic()
    print(estimate(json.load(sys.stdin), began))
