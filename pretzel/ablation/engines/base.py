"""The interface between the scheduler and an engine."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path


class StartedRun(ABC):
    """A run that an engine has been given."""

    @abstractmethod
    def poll(self) -> int | None:
        """Return the exit code of the run (negative: the signal that ended it), None before."""

    @abstractmethod
    def interrupt(self) -> None:
        """Ask the run to save a checkpoint and stop."""

    @abstractmethod
    def kill(self) -> None:
        """End the run at once."""


class Engine(ABC):
    """Executes runs, each in a process of its own."""

    @abstractmethod
    def capacity(self) -> int:
        """Return how many more runs it takes now."""

    @abstractmethod
    def start(self, folders: Sequence[Path]) -> list[StartedRun]:
        """Start runs.

        Args:
            folders: Their folders, with ``run.json``; at most :meth:`capacity`.

        Raises:
            UserError: If they cannot be started.
        """

    @abstractmethod
    def close(self) -> None:
        """End what is still running, and the engine."""
