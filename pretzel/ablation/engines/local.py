"""Engines on this machine: runs in slots, each at the head of a group of processes."""

import contextlib
import os
import signal
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pretzel.ablation.engines.base import Engine, StartedRun

_CLOSE_SECONDS = 10.0
_SLURM_TASK = (
    *("SLURM_NTASKS", "SLURM_NPROCS", "SLURM_NTASKS_PER_NODE", "SLURM_STEP_NUM_TASKS"),
    *("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"),
)


class LocalRun(StartedRun):
    """A run on this machine, by the process that leads its group.

    ``exit_code`` returns that of the process, None before it has ended; ends with it what the
    process has left behind.
    """

    def __init__(self, pid: int, exit_code: Callable[[], int | None]) -> None:
        self.pid, self.exit_code = pid, exit_code
        self.code: int | None = None

    def poll(self) -> int | None:
        """Return the exit code of the run, None before."""
        if self.code is None:
            self.code = self.exit_code()
        return self.code

    def interrupt(self) -> None:
        """Ask the run's first process to stop; it sees to the others."""
        self._send(signal.SIGINT)

    def kill(self) -> None:
        """End all processes of the run at once."""
        self._send(signal.SIGKILL)
        if self.code is None:
            end_group(self.pid)

    def _send(self, number: signal.Signals) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class LocalEngine(Engine):
    """Gives each run a free slot.

    Args:
        slots: Variables that each adds to the environment of its run, such as the GPUs to see.
    """

    def __init__(self, slots: Sequence[Mapping[str, str]]) -> None:
        self.slots = slots
        self.running: dict[int, LocalRun] = {}  # by slot

    @abstractmethod
    def launch(self, folder: Path, environment: dict[str, str]) -> LocalRun:
        """Start the process of a run as the leader of a group; its output goes into ``log.txt``."""

    def capacity(self) -> int:
        """Return the number of free slots."""
        return len(self._free_slots())

    def start(self, folders: Sequence[Path]) -> list[StartedRun]:
        """Start each run in a free slot."""
        started: list[StartedRun] = []
        for slot, folder in zip(self._free_slots(), folders, strict=False):
            environment = {**worker_environment(), **self.slots[slot]}
            self.running[slot] = self.launch(folder.resolve(), environment)
            started.append(self.running[slot])
        return started

    def _free_slots(self) -> list[int]:
        self.running = {slot: run for slot, run in self.running.items() if run.poll() is None}
        return [slot for slot in range(len(self.slots)) if slot not in self.running]

    def close(self) -> None:
        """Kill what is still running, and wait until it has ended."""
        for run in self.running.values():
            run.kill()
        deadline = time.monotonic() + _CLOSE_SECONDS
        while self.capacity() < len(self.slots) and time.monotonic() < deadline:
            time.sleep(0.01)


def worker_environment() -> dict[str, str]:
    """Return our environment for runs, which use one thread unless the user says otherwise.

    In a job of Slurm we may be one of its tasks. Our runs are none: Lightning would wait for the
    others.
    """
    ours = {name: value for name, value in os.environ.items() if name not in _SLURM_TASK}
    return {"OMP_NUM_THREADS": "1", **ours}


def end_group(leader: int) -> None:
    """Kill the group of a process that has ended, or is about to: ranks, readers of data."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing; on macOS, a zombie
        os.killpg(leader, signal.SIGKILL)
