"""Estimates a run's time by a few steps in a fresh process (``python -m`` this module).

The process reads a resolved configuration as JSON and prints the seconds in its last line. Its
imports of torch and Lightning count too: they stand where the clock runs.
"""

import json
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

_STEPS = 10
_WARM = 3  # the first ones are slower


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
