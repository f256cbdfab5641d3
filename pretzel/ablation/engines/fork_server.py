"""Each cell a fork of a server that has the imports: 0.02 s in place of seconds."""

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pretzel.ablation.engines.device_slots import Slots
from pretzel.ablation.engines.local import Local, LocalRun, worker_environment
from pretzel.errors import UserError

_GONE = 130  # as if interrupted: when the server is killed, its cells save and stop


class Forks(Local):
    """Starts the server at once, so that it imports while the grid is planned.

    Args:
        slots: How many cells at a time, and what each one sees.
    """

    def __init__(self, slots: Slots) -> None:
        super().__init__(slots)
        self.forks: dict[int, LocalRun] = {}  # by the number that the server knows them by
        self.unread = b""
        self.server = subprocess.Popen(
            [sys.executable, "-m", "pretzel.ablation.engines.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=worker_environment(),
            start_new_session=True,
        )

    def prepare(self, modules: Iterable[str]) -> None:
        """Import further modules before the first cell starts, such as those of users' parts."""
        self._tell({"import": list(modules)})

    def launch(self, cell: LocalRun, folder: Path, environment: dict[str, str]) -> None:
        """Have the server fork."""
        number = len(self.forks)
        self._tell({"start": number, "folder": str(folder), "environment": environment})
        self.forks[number] = cell

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
            if not data:  # the server is gone, and its forks are about to stop
                for cell in list(self.running.values()):
                    self.ended(cell, _GONE)
                return
            *lines, self.unread = (self.unread + data).split(b"\n")
            for line in lines:
                said = json.loads(line)
                if "started" in said:
                    self.forks[said["started"]].process = said["pid"]
                else:
                    self.ended(self.forks[said["ended"]], said["code"])

    def close(self) -> None:
        """Kill what is still running and end the server."""
        super().close()
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
