"""What engines on this machine share: cells in slots, each at the head of a group of processes."""

import contextlib
import os
import signal
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pretzel.ablation.engines.base import Engine, Started
from pretzel.ablation.engines.device_slots import Slots

_SLURM_TASK = (
    *("SLURM_NTASKS", "SLURM_NPROCS", "SLURM_NTASKS_PER_NODE", "SLURM_STEP_NUM_TASKS"),
    *("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"),
)


@dataclass(eq=False)
class LocalRun(Started):
    """A cell in a slot.

    Attributes:
        engine: Its engine.
        place: The number of its slot.
        process: The process that leads its group, once that is known.
        code: Its exit code, once it has ended.
    """

    engine: "Local"
    place: int
    process: int | None = None
    code: int | None = None

    def poll(self) -> int | None:
        """Return the exit code of the cell, None before."""
        self.engine.listen()
        return self.code

    def interrupt(self) -> None:
        """Ask the cell's first process to stop; it sees to the others."""
        self._send(signal.SIGINT)

    def kill(self) -> None:
        """End all processes of the cell at once."""
        self._send(signal.SIGKILL)
        if self.code is None and self.process is not None:
            end_group(self.process)

    def _send(self, number: signal.Signals) -> None:
        if self.poll() is None and self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process, number)


class Local(Engine):
    """Gives each cell a free slot.

    Args:
        slots: How many cells at a time, and what each one sees.
    """

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.running: dict[int, LocalRun] = {}  # by slot

    @abstractmethod
    def launch(self, cell: LocalRun, folder: Path, environment: dict[str, str]) -> None:
        """Start the process of a cell, as the leader of a group.

        Args:
            cell: Is told the process, at once or by :meth:`listen`.
            folder: Holds ``cell.json``; its standard output and error go into ``log.txt`` there.
            environment: What the slot adds to :func:`worker_environment`.
        """

    @abstractmethod
    def listen(self) -> None:
        """Take note of the cells that have ended, with all that they had started."""

    def room(self) -> int:
        """Return the number of free slots."""
        return len(self.slots.environments) - len(self.running)

    def start(self, folders: Sequence[Path]) -> list[Started]:
        """Start each cell in a free slot."""
        return [self._start(folder) for folder in folders]

    def _start(self, folder: Path) -> LocalRun:
        places = enumerate(self.slots.environments)
        place, added = next((i, added) for i, added in places if i not in self.running)
        cell = LocalRun(self, place)
        self.launch(cell, folder.resolve(), added)
        self.running[place] = cell
        return cell

    def ended(self, cell: LocalRun, code: int) -> None:
        """Take note of a cell that has ended, and free its slot."""
        cell.code = code
        del self.running[cell.place]

    def close(self) -> None:
        """Kill what is still running."""
        for cell in list(self.running.values()):
            cell.kill()


def worker_environment() -> dict[str, str]:
    """Return our environment for cells, which use one thread unless the user says otherwise.

    In a job of Slurm we may be one of its tasks. Our cells are none: Lightning would wait for the
    others.
    """
    ours = {name: value for name, value in os.environ.items() if name not in _SLURM_TASK}
    return {"OMP_NUM_THREADS": "1", **ours}


def end_group(leader: int) -> None:
    """Kill what a process has started and left behind, such as ranks and readers of data.

    Args:
        leader: Its id; it has ended just now, or is about to.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing; on macOS, a zombie
        os.killpg(leader, signal.SIGKILL)
