"""Estimates a run's time by a few steps in a fresh process (``python -m`` this module).

The process reads a resolved configuration as JSON and prints, as JSON in its last line, the seconds
until the first step, the seconds of a step and the number of steps.
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
from pretzel.errors import UserError

_STEPS = 10
_WARM = 3  # the first ones are slower


def probe(plan: Plan, run: PlannedRun) -> float:
    """Return the seconds that a run's training takes, estimated by its first steps.

    The stages that it starts from need not have run.

    Raises:
        UserError: If it fails within these steps.
    """
    from pretzel.ablation.gridfile.run_config import paths_in, without

    weights = {str(plan.grid.output / name / "weights.safetensors") for name in run.needs}
    missing = {path for path in paths_in(run.config, weights) if not Path(path).exists()}
    process = subprocess.run(
        [sys.executable, "-m", "pretzel.ablation.planning.time_probe"],
        input=json.dumps(without(run.config, missing)),
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
        check=False,
    )
    if process.returncode:
        lines = process.stderr.strip().splitlines() or [f"exit code {process.returncode}"]
        raise UserError(f"{run.name}: its first steps failed: {lines[-1]}")
    pace = json.loads(process.stdout.strip().splitlines()[-1])  # the module's own prints come first
    return float(pace["start"] + pace["step"] * pace["steps"])


def probe_all(plan: Plan, runs: Iterable[PlannedRun]) -> dict[str, float]:
    """Return the seconds of a run by family, without those that fail; say so on standard error."""
    one_each = {run.family: run for run in runs}
    seconds: dict[str, float] = {}
    for number, (family, run) in enumerate(one_each.items()):
        print(f"probing {run.name} ({number + 1} of {len(one_each)})", file=sys.stderr, flush=True)
        try:
            seconds[family] = probe(plan, run)
        except UserError as error:
            print(error, file=sys.stderr, flush=True)
    return seconds


def measure_pace(config: dict[str, Any], started: float) -> dict[str, float]:
    """Train a few steps of a resolved configuration, in a folder that is thrown away.

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
    return {"start": times[0] - started, "step": step, "steps": steps}


if __name__ == "__main__":
    began = time.monotonic()
    print(json.dumps(measure_pace(json.load(sys.stdin), began)))
