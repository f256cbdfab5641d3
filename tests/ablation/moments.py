"""Moments at which a cell's process kills itself: a real SIGKILL where a clock could not aim."""

import os
import random
import signal
import threading
import time
from pathlib import Path


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def half_a_checkpoint(count: str) -> None:
    """Die in the middle of writing the n-th checkpoint."""
    left, sync = [int(count)], os.fsync

    def half(number: int) -> None:
        name = os.readlink(f"/proc/self/fd/{number}")
        left[0] -= "/last.saving." in name
        if left[0] == 0:
            os.truncate(name, os.fstat(number).st_size // 2)
            die()
        sync(number)

    os.fsync = half


def before_rename_to(name: str, count: str = "1") -> None:
    """Die where a file is about to get its name for the n-th time."""
    left = [int(count)]
    original = os.replace

    def dying(source, target, **kwargs) -> None:
        left[0] -= Path(target).name == name
        if left[0] == 0:
            die()
        original(source, target, **kwargs)

    os.replace = dying


def clock_goes_back() -> None:
    """Let every look at the clock be a day earlier than the one before."""
    now = [time.time()]

    def earlier() -> float:
        now[0] -= 86400.0
        return now[0]

    time.time = earlier


def hang_in_training(count: str) -> None:
    """Wait for nothing at the n-th training batch."""
    _in_step("training_step", int(count), wait_for_nothing)


def busy_data(count: str) -> None:
    """Look for the n-th training batch forever, without ever standing still."""
    from noisy import Ordered

    each = Ordered.__iter__

    def searching(self):
        for number, batch in enumerate(each(self)):
            while number == int(count):
                time.sleep(0.001)
                random.random()
            yield batch

    Ordered.__iter__ = searching


def long_metric(seconds: str) -> None:
    """Compute for some seconds at the end of the first validations, with no batch meanwhile."""
    from noisy import Counts

    def compute(self, trainer, pl_module) -> None:
        end = time.monotonic() + float(seconds) * (trainer.global_step < 6)
        while time.monotonic() < end:
            time.sleep(0.01)
            sum(range(100_000))
            time.sleep(0.01)

    Counts.on_validation_end = compute


def wait_for_nothing() -> None:
    threading.Event().wait()


def diverge(count: str) -> None:
    """Let the loss of the n-th training batch be infinite."""
    from noisy import Noisy

    step, left = Noisy.training_step, [int(count)]

    def infinite(self, batch, batch_idx):
        left[0] -= 1
        return step(self, batch, batch_idx) * (float("inf") if left[0] == 0 else 1.0)

    Noisy.training_step = infinite


def metric_is_nan() -> None:
    """Log a metric that is not a number, as one may be that is not applicable."""
    from noisy import Noisy

    step = Noisy.training_step

    def logging(self, batch, batch_idx):
        self.log("train/undefined", float("nan"))
        return step(self, batch, batch_idx)

    Noisy.training_step = logging


def in_validation(count: str) -> None:
    """Die at the n-th validation batch."""
    _in_step("validation_step", int(count))


def in_training(count: str) -> None:
    """Die at the n-th training batch."""
    _in_step("training_step", int(count))


def in_test(count: str) -> None:
    """Die at the n-th test batch."""
    _in_step("test_step", int(count))


def _in_step(name: str, count: int, act=die) -> None:
    from noisy import Noisy

    step = getattr(Noisy, name)
    left = [count]

    def dying(self, batch, batch_idx):
        left[0] -= 1
        if left[0] == 0:
            act()
        return step(self, batch, batch_idx)

    setattr(Noisy, name, dying)
