"""Each cell in a fresh process that imports everything anew."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pretzel.ablation.engines.base import Engine, Started
from pretzel.ablation.engines.slots import Places, Slots


@dataclass
class _Process(Started):
    process: subprocess.Popen[bytes]
    places: Places
    place: int

    def poll(self) -> int | None:
        code = self.process.poll()
        if code is not None:
            self.places.leave(self.place)
            if self.process.stdin is not None:
                self.process.stdin.close()
        return code

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Processes(Engine):
    """Starts ``python -m pretzel.ablation.running.cell FOLDER``.

    Args:
        slots: How many at a time, and what each one sees.
    """

    def __init__(self, slots: Slots) -> None:
        self.places = Places(slots)
        self.started: list[_Process] = []

    def room(self) -> int:
        """Return the number of free slots."""
        return self.places.room

    def start(self, folders: Sequence[Path]) -> list[Started]:
        """Start a process for each folder."""
        return [self._start(folder) for folder in folders]

    def _start(self, folder: Path) -> Started:
        place, environment = self.places.take()
        with (folder / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "pretzel.ablation.running.cell", str(folder)],
                stdin=subprocess.PIPE,  # its end tells the cell that we are gone
                stdout=log,
                stderr=subprocess.STDOUT,
                env=one_thread(os.environ) | environment,
                start_new_session=True,  # Ctrl-C reaches the cells through us, once
            )
        self.started.append(_Process(process, self.places, place))
        return self.started[-1]

    def close(self) -> None:
        """Kill what is still running."""
        for one in self.started:
            if one.process.poll() is None:
                one.kill()


def one_thread(environment: "os._Environ[str]") -> dict[str, str]:
    """Return an environment in which a process uses one thread, unless the user says otherwise."""
    return {"OMP_NUM_THREADS": "1", **environment}
