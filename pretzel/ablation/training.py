"""What a cell does once the heavy imports are there: fit, test, and what it reports meanwhile."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Checkpoint, WeightAveraging
from lightning.pytorch.utilities.model_helpers import is_overridden
from typing_extensions import override

from pretzel.ablation.ledger import CellFolder, read_json, write_json
from pretzel.ablation.plan import Exports
from pretzel.cli import PretzelCLI
from pretzel.errors import UserError

_REPORT_SECONDS = 0.5


class CellCLI(PretzelCLI):
    """The command line's own way from a configuration to objects; the cell runs them itself."""

    @override
    def _run_subcommand(self, subcommand: str) -> None:
        """Leave running to the cell."""


class Watch(Checkpoint):
    """Report progress, keep a checkpoint to continue from, and stop when asked.

    A ``Checkpoint`` because Lightning calls these last: averaged weights are up to date by then.

    Args:
        folder: The cell's folder.
        every: Seconds between checkpoints.
        asked_to_stop: Whether to save and stop at the end of this batch.
    """

    def __init__(self, folder: CellFolder, every: float, asked_to_stop: Callable[[], bool]) -> None:
        self.folder, self.every, self.asked_to_stop = folder, every, asked_to_stop
        self.started = self.saved = time.monotonic()
        self.reported = 0.0
        self.before = float(folder.progress.get("seconds", 0.0))
        self.trained = False
        self.first: tuple[float, int] | None = None

    @property
    def seconds(self) -> float:
        """Seconds of work on this cell, over all its processes."""
        return self.before + time.monotonic() - self.started

    @override
    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        now = time.monotonic()
        self.first = self.first or (now, trainer.global_step)
        stop = trainer.strategy.reduce_boolean_decision(self.asked_to_stop(), all=False)
        due = trainer.strategy.reduce_boolean_decision(now - self.saved >= self.every, all=False)
        if stop or due:
            save(trainer, self.folder.path / "last.ckpt", weights_only=False)
            self.saved = now
        self.report(trainer, "fit", force=stop or due)
        if stop:
            raise KeyboardInterrupt

    @override
    def on_validation_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self._elsewhere(trainer, "validate")

    @override
    def on_test_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self._elsewhere(trainer, "test")

    @override
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.report(trainer, "test", force=True)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.trained = True

    def _left(self, trainer: Trainer) -> float | None:
        """Return the seconds that training still takes at the pace of this process."""
        total = _total_steps(trainer)
        if total is None or self.first is None or trainer.global_step <= self.first[1]:
            return None
        pace = (time.monotonic() - self.first[0]) / (trainer.global_step - self.first[1])
        return pace * max(total - trainer.global_step, 0)

    def _elsewhere(self, trainer: Trainer, phase: str) -> None:
        self.report(trainer, phase)
        if self.asked_to_stop():
            raise KeyboardInterrupt

    def report(self, trainer: Trainer, phase: str, *, force: bool = False) -> None:
        """Write ``progress.json``, at most twice a second."""
        now = time.monotonic()
        if not trainer.is_global_zero or (not force and now - self.reported < _REPORT_SECONDS):
            return
        self.reported = now
        write_json(
            self.folder.path / "progress.json",
            {
                "phase": phase,
                "step": trainer.global_step,
                "total": _total_steps(trainer),
                "seconds": self.seconds,
                "left": self._left(trainer),
                "metrics": metrics(trainer),
                "time": time.time(),
            },
        )


def train_and_test(
    folder: CellFolder, spec: dict[str, Any], asked_to_stop: Callable[[], bool]
) -> dict[str, Any]:
    """Fit from where the cell stands, then test with the final weights.

    Args:
        folder: Holds ``last.ckpt`` or ``final.ckpt`` of an earlier process, if there was one.
        spec: The cell's configuration and what it is asked for.
        asked_to_stop: Whether to stop at the next batch.

    Returns:
        Metrics, seconds and numbers of parameters.

    Raises:
        KeyboardInterrupt: After saving, when asked to stop.
        UserError: If a stage's module exports nothing.
    """
    watch = Watch(folder, float(spec["checkpoint_seconds"]), asked_to_stop)
    cli = CellCLI(Namespace({"subcommand": "fit", "fit": spec["config"]}))  # type: ignore[no-untyped-call]
    trainer, model = cli.trainer, cli.model
    trainer.callbacks.append(watch)  # type: ignore[attr-defined]
    final = folder.path / "final.ckpt"
    fitted = read_json(folder.path / "fit.json")
    if fitted is None or not final.exists():
        trainer.fit(
            model, datamodule=cli.datamodule, ckpt_path=_newest(folder.path), weights_only=True
        )
        _average_if_skipped(trainer, model, watch)
        fitted = {
            "metrics": metrics(trainer),
            "train_seconds": watch.seconds,
            "steps": trainer.global_step,
        }
        write_json(folder.path / "fit.json", fitted)
        save(trainer, final, weights_only=True)
    else:  # trained by an earlier process: nothing has put its weights into this model yet
        kept = torch.load(final, map_location="cpu", weights_only=True)
        model.on_load_checkpoint(kept)
        model.load_state_dict(kept["state_dict"])
    if asked_to_stop():
        raise KeyboardInterrupt
    found = dict(fitted["metrics"])
    if not spec["export"] and is_overridden("test_step", model):
        # seeded anew: the test is the same whether training has just ended or was resumed
        seed_everything(cli.config["fit"]["seed_everything"], workers=True, verbose=False)
        trainer.test(
            model, datamodule=cli.datamodule, ckpt_path=final, weights_only=True, verbose=False
        )
        found |= metrics(trainer)
    if spec["export"]:
        _export(model, folder.path / "weights.safetensors")
    sizes = {True: 0, False: 0}
    for parameter in model.parameters():
        sizes[parameter.requires_grad] += parameter.numel()
    return {
        "metrics": found,
        "train_seconds": fitted["train_seconds"],
        "seconds": watch.seconds,
        "steps": fitted["steps"],
        "parameters": {"trainable": sizes[True], "frozen": sizes[False]},
    }


def metrics(trainer: Trainer) -> dict[str, float]:
    """Return the scalars logged so far."""
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def save(trainer: Trainer, path: Path, *, weights_only: bool) -> None:
    """Save a checkpoint whole or not at all."""
    temporary = path.with_suffix(".saving")
    trainer.save_checkpoint(temporary, weights_only=weights_only)
    if trainer.is_global_zero:
        os.replace(temporary, path)


def _newest(folder: Path) -> Path | None:
    """Return the newest checkpoint to continue from; the base may keep its own."""
    found = [*folder.glob("last.ckpt"), *folder.glob("checkpoints/last*.ckpt")]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def _average_if_skipped(trainer: Any, model: LightningModule, watch: Watch) -> None:  # noqa: ANN401
    """Take the averaged weights where the checkpoint was of the very last step.

    Lightning then skips training altogether, and with it ``on_train_end``, which takes them.
    """
    if not watch.trained:
        for callback in trainer.callbacks:
            if isinstance(callback, WeightAveraging):
                callback.on_train_end(trainer, model)


def _export(model: LightningModule, path: Path) -> None:
    if not isinstance(model, Exports):
        raise UserError(f"{type(model).__name__} cannot be a stage: it has no method export(path)")
    temporary = path.with_suffix(".saving")
    try:
        model.export(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # nothing half-written stays on a full disk


def _total_steps(trainer: Trainer) -> int | None:
    if trainer.max_steps > 0:
        return int(trainer.max_steps)
    batches = trainer.num_training_batches
    if trainer.max_epochs is None or trainer.max_epochs < 0 or batches == float("inf"):
        return None
    return int(trainer.max_epochs * batches // trainer.accumulate_grad_batches)
