"""Each cell a fork of a server that has the imports: 0.02 s in place of seconds."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretzel.ablation.engines.base import Engine, Started
from pretzel.ablation.engines.processes import one_thread
from pretzel.ablation.engines.slots import Places, Slots
from pretzel.errors import UserError

_GONE = 130  # as if interrupted: when the server is killed, its cells save and stop


@dataclass
class _Fork(Started):
    engine: "Forks"
    place: int
    process: int | None = None
    code: int | None = None

    def poll(self) -> int | None:
        self.engine.listen()
        return self.code

    def interrupt(self) -> None:
        self._send(signal.SIGINT)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        self.engine.listen()
        if self.process is not None and self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process, number)


class Forks(Engine):
    """Starts the server at once, so that it imports while the grid is planned.

    Args:
        slots: How many cells at a time, and what each one sees.
    """

    def __init__(self, slots: Slots) -> None:
        self.places = Places(slots)
        self.forks: dict[int, _Fork] = {}
        self.number = 0
        self.unread = b""
        self.server = subprocess.Popen(
            [sys.executable, "-m", "pretzel.ablation.engines.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=one_thread(os.environ),
            start_new_session=True,
        )

    def prepare(self, modules: Iterable[str]) -> None:
        """Import further modules before the first cell starts, such as those of users' parts."""
        self._tell({"import": list(modules)})

    def room(self) -> int:
        """Return the number of free slots."""
        return self.places.room

    def start(self, folders: Sequence[Path]) -> list[Started]:
        """Fork the server once for each folder."""
        return [self._start(folder) for folder in folders]

    def _start(self, folder: Path) -> Started:
        place, environment = self.places.take()
        fork = self.forks[self.number] = _Fork(self, place)
        self._tell(
            {"start": self.number, "folder": str(folder.resolve()), "environment": environment}
        )
        self.number += 1
        return fork

    def _tell(self, command: dict[str, Any]) -> None:
        assert self.server.stdin is not None
        try:
            self.server.stdin.write(json.dumps(command).encode() + b"\n")
            self.server.stdin.flush()
        except BrokenPipeError as error:
            raise UserError(
                f"the server that cells are forked from has ended (code {self.server.poll()}); "
                "its own message stands above; --engine processes does without it"
            ) from error

    def listen(self) -> None:
        """Take in what the server has said."""
        assert self.server.stdout is not None
        out = self.server.stdout.fileno()
        while select.select([out], [], [], 0)[0]:
            data = os.read(out, 1 << 16)
            if not data:
                self._lost()
                return
            *lines, self.unread = (self.unread + data).split(b"\n")
            for line in lines:
                said = json.loads(line)
                if "started" in said:
                    self.forks[said["started"]].process = said["pid"]
                else:
                    self._ended(self.forks[said["ended"]], said["code"])

    def _ended(self, fork: _Fork, code: int) -> None:
        fork.code = code
        self.places.leave(fork.place)

    def _lost(self) -> None:
        """The server is gone, and its forks are about to stop."""
        for fork in self.forks.values():
            if fork.code is None:
                self._ended(fork, _GONE)

    def close(self) -> None:
        """Kill what is still running and end the server."""
        for fork in self.forks.values():
            if fork.code is None:
                fork.kill()
        assert self.server.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.server.stdin.close()
        try:
            self.server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.server.kill()
            self.server.wait()
        assert self.server.stdout is not None
        self.server.stdout.close()
