"""What the runner asks of an engine."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path


class Started(ABC):
    """A cell that an engine has been given."""

    @abstractmethod
    def poll(self) -> int | None:
        """Return the exit code of the cell (negative: the signal that ended it), None before."""

    @abstractmethod
    def interrupt(self) -> None:
        """Ask the cell to save a checkpoint and stop."""

    @abstractmethod
    def kill(self) -> None:
        """End the cell at once."""


class Engine(ABC):
    """Runs cells, each in a process of its own."""

    def prepare(self, modules: Iterable[str]) -> None:
        """Import modules beforehand, where that saves time.

        Args:
            modules: Those that the cells will import.
        """
        del modules  # most engines start processes that import for themselves

    @abstractmethod
    def room(self) -> int:
        """Return how many more cells it takes now."""

    @abstractmethod
    def start(self, folders: Sequence[Path]) -> list[Started]:
        """Start cells.

        Args:
            folders: Their folders, with ``cell.json``; at most :meth:`room`.

        Raises:
            UserError: If they cannot be started.
        """

    @abstractmethod
    def close(self) -> None:
        """End what is still running, and the engine."""
