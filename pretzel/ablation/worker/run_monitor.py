"""Callback of every run: reports progress, checkpoints, stops on request, notices divergence."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor
from typing_extensions import override

from pretzel.ablation.ledger import RunFolder
from pretzel.ablation.worker.checkpoints import Checkpoints
from pretzel.ablation.worker.hang_watchdog import Watchdog
from pretzel.errors import UserError
from pretzel.files.atomic import write_json
from pretzel.runs.exact_resume import ExactEpochLoop
from pretzel.runs.weights_hash import trained_weights_hash

_REPORT_SECONDS = 0.5
_FIRST_STEPS = 4
"""Steps after which the weights are hashed, in every run: at the first one, parts behind a factor
that starts at zero (outputs of conditioners, skips) have no gradient, behind two of them they have
none at the second, and a warm-up may begin with a learning rate of zero."""
_VALIDATION_SHARE = 20
"""A checkpoint before each validation, unless that took more than a 20th of the time."""


class Diverged(UserError):
    """A training loss that is not finite, at a step."""

    def __init__(self, step: int) -> None:
        super().__init__(
            f"the training loss is not finite at step {step}, and no checkpoint was written since; "
            "a smaller learning rate, gradient clipping or a longer warm-up usually helps"
        )
        self.step = step


class RunMonitor(Checkpoint):
    """Report progress, keep checkpoints to continue from, and stop on request.

    A ``Checkpoint`` because Lightning calls these last: averaged weights are up to date by then.
    It saves ``every`` so many seconds, and saves and stops at the end of a batch if ``must_stop``;
    the watchdog is told of every batch.

    Raises:
        Diverged: If the training loss is not finite.
    """

    def __init__(
        self,
        folder: RunFolder,
        every: float,
        must_stop: Callable[[], bool],
        watchdog: Watchdog | None = None,
    ) -> None:
        self.folder, self.every, self.must_stop = folder, every, must_stop
        self.watchdog = watchdog
        self.checkpoints = Checkpoints(folder.path)
        self.started = self.saved = time.monotonic()
        self.reported = self.cost = 0.0
        self.before = float(folder.progress.get("seconds", 0.0))
        self.within_step = False
        self.first: tuple[float, int] | None = None
        # of the first process of the run that came so far, whatever a later one starts from
        self.weights: dict[str, Any] = folder.progress.get("weights") or {}
        self.diverged: Tensor | None = None
        self.on_sigterm = signal.getsignal(signal.SIGTERM)

    def follow(self, trainer: Trainer, loop: ExactEpochLoop) -> None:
        """Watch a trainer; behind everything else that does."""
        trainer.callbacks.append(self)  # type: ignore[attr-defined]
        loop.after_step = lambda validates: self._after_step(trainer, loop, validates)
        if self.watchdog is not None:
            self.watchdog.needs_batches = lambda: loop.is_working

    @property
    def seconds(self) -> float:
        """Seconds of work on this run, over all its processes."""
        return self.before + time.monotonic() - self.started

    @override
    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._keep_signal()

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._keep_signal()

    def _keep_signal(self) -> None:
        # Lightning stops at the next batch and saves nothing, even where gradients accumulate; and
        # of several processes, one would wait in its handler for the others
        if callable(self.on_sigterm) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.on_sigterm)

    def _after_step(self, trainer: Trainer, loop: ExactEpochLoop, validates: bool) -> None:
        self._beat()
        self.within_step = loop.accumulates
        if self.within_step:
            return  # gradients are in no checkpoint
        if not self.weights and trainer.global_step >= _FIRST_STEPS and trainer.is_global_zero:
            first = trained_weights_hash(trainer.lightning_module)
            self.weights = {"step": trainer.global_step, "first": first}
            self.report(trainer, "fit", force=True)  # before any checkpoint behind these steps
        now = time.monotonic()
        self.first = self.first or (now, trainer.global_step)
        # Who is stopped or killed in a validation continues from its beginning.
        patience = min(self.every, _VALIDATION_SHARE * self.cost) if validates else self.every
        stop = trainer.strategy.reduce_boolean_decision(self.must_stop(), all=False)
        due = trainer.strategy.reduce_boolean_decision(now - self.saved >= patience, all=False)
        if stop or due or (trainer.world_size == 1 and now - self.reported >= _REPORT_SECONDS):
            self._check_diverged(trainer)
        if stop or due:
            self.checkpoints.save(trainer)
            self.saved = time.monotonic()
            self.cost = self.saved - now
        self.report(trainer, "fit", force=stop or due)
        if stop:
            raise KeyboardInterrupt

    @override
    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        # The first step with a loss that is not finite, -1 before. Looking at it here would wait
        # for a GPU at every batch, and leave other processes waiting for this one.
        if self.diverged is None:
            self.diverged = torch.tensor(-1, device=loss.device)
        is_first = (self.diverged < 0) & ~loss.detach().isfinite().all()
        self.diverged = torch.where(is_first, trainer.global_step, self.diverged)
        if loss.device.type == "cpu" and trainer.world_size == 1:
            self._check_diverged(trainer)

    def _check_diverged(self, trainer: Trainer) -> None:
        step = -1 if self.diverged is None else int(self.diverged)
        if trainer.strategy.reduce_boolean_decision(step >= 0, all=False):
            raise Diverged(step if step >= 0 else trainer.global_step)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check_diverged(trainer)

    @override
    def on_validation_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self._after_other_batch(trainer, "validate")

    @override
    def on_test_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self._after_other_batch(trainer, "test")

    @override
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._keep_signal()
        self.report(trainer, "test", force=True)

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        with contextlib.suppress(UserError):  # the disk may be what failed
            self.report(trainer, str(self.folder.progress.get("phase", "start")), force=True)

    def _after_other_batch(self, trainer: Trainer, phase: str) -> None:
        self._beat()
        self.report(trainer, phase)
        # A validation in the midst of a step ends first: nothing could be saved before it. The
        # first process takes the others with it.
        stop = self.must_stop() and trainer.is_global_zero
        if stop and not (phase == "validate" and self.within_step):
            raise KeyboardInterrupt

    def _beat(self) -> None:
        if self.watchdog is not None:
            self.watchdog.beat()

    def report(self, trainer: Trainer, phase: str, *, force: bool = False) -> None:
        """Write ``progress.json``, at most twice a second.

        Raises:
            UserError: If it cannot be written.
        """
        now = time.monotonic()
        if not trainer.is_global_zero or (not force and now - self.reported < _REPORT_SECONDS):
            return
        self.reported = now
        step, total, rate, left = trainer.global_step, _total_steps(trainer), None, None
        if self.first is not None and step > self.first[1]:
            rate = (step - self.first[1]) / (now - self.first[0])  # with all between the steps
            left = None if total is None else max(total - step, 0) / rate
        progress = {
            "phase": phase,
            "step": step,
            "total": total,
            "seconds": self.seconds,
            "rate": rate,
            "left": left,
            "metrics": logged_scalars(trainer),
            "weights": self.weights,
            "time": time.time(),
        }
        write_json(self.folder.path / "progress.json", progress)


def logged_scalars(trainer: Trainer) -> dict[str, float]:
    """Return the scalars logged so far."""
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def _total_steps(trainer: Trainer) -> int | None:
    if trainer.max_steps > 0:
        return int(trainer.max_steps)
    batches = trainer.num_training_batches
    if trainer.max_epochs is None or trainer.max_epochs < 0 or batches == float("inf"):
        return None
    return int(trainer.max_epochs * batches // trainer.accumulate_grad_batches)
