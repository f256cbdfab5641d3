"""The fork server: ``python -m pretzel.ablation.engines.server``, started by :class:`Forks`.

It imports what every cell needs, once, and builds nothing: a cell is a fresh fork of it, into which
nothing leaks from the cells before. It talks in lines of JSON, on standard input and output:

    {"import": [modules]}                               prepares
    {"start": number, "folder": path, "environment": {}} -> {"started": number, "pid": pid}
                                                         -> {"ended": number, "code": code}

It ends when its standard input does, and with it the cells: they notice that it is gone.
"""

import atexit
import contextlib
import gc
import importlib
import importlib.util
import json
import os
import select
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pretzel.ablation.engines.local import end_group

_CELL = "pretzel.ablation.worker.process"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a fork has to do."""

    folder: Path


@dataclass
class _Server:
    children: dict[int, int] = field(default_factory=dict)  # number by process id
    leashes: dict[int, int] = field(default_factory=dict)  # write end of its stdin by process id
    unread: bytes = b""

    def serve(self) -> Job | None:
        """Return None when the runner is gone; in each fork, what it has to do."""
        wake, woken = os.pipe()
        os.set_blocking(woken, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the runner's to pass on
        while True:
            ready, _, _ = select.select([0, wake], [], [])
            if wake in ready:
                os.read(wake, 4096)
                self.collect()
            if 0 in ready:
                data = os.read(0, 1 << 16)
                if not data:
                    for held in self.leashes.values():
                        os.close(held)  # our own end takes a while
                    return None
                *lines, self.unread = (self.unread + data).split(b"\n")
                for line in lines:
                    job = self.obey(json.loads(line))
                    if job is not None:
                        signal.set_wakeup_fd(-1)
                        os.close(wake)
                        os.close(woken)
                        return job

    def obey(self, command: dict[str, Any]) -> Job | None:
        if "import" in command:
            _import(command["import"])
            return None
        return self.fork(command)

    def fork(self, command: dict[str, Any]) -> Job | None:
        folder = Path(command["folder"])
        leash, held = os.pipe()
        gc.freeze()  # what is there now is shared with the fork and not walked by its collector
        process = os.fork()
        if process:
            os.close(leash)
            self.children[process], self.leashes[process] = command["start"], held
            self.tell(started=command["start"], pid=process)
            return None
        for other in (held, *self.leashes.values()):
            os.close(other)
        os.setsid()  # Ctrl-C reaches the cells through the runner, once
        with (folder / "log.txt").open("ab") as log:
            for target in (1, 2):
                os.dup2(log.fileno(), target)
        os.dup2(leash, 0)
        os.close(leash)
        os.environ.update(command["environment"])
        for number in (signal.SIGCHLD, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return Job(folder=folder)

    def collect(self) -> None:
        """Tell of the forks that have ended."""
        while self.children:
            process, status = os.waitpid(-1, os.WNOHANG)
            if process == 0:
                return
            end_group(process)  # what it has started and left behind
            os.close(self.leashes.pop(process))
            code = os.waitstatus_to_exitcode(status)
            self.tell(ended=self.children.pop(process), code=code)

    def tell(self, **said: int) -> None:
        os.write(1, json.dumps(said).encode() + b"\n")


class _Leave:
    """Ends a fork before Python takes down all that it shares with the server, and so copies it.

    That took as long as a few dozen steps. Registered first, it is the last to be called at exit.
    """

    code: int | None = None

    def __call__(self) -> None:
        if self.code is None:
            return
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # a full disk, a closed stream
                stream.flush()
        os._exit(self.code)


def _import(names: list[str]) -> None:
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # the cell that needs it will say so itself
            print(f"{name} cannot be imported beforehand: {error}", file=sys.stderr)


def main() -> int:
    """Serve; in a fork, run its cell."""
    leave = _Leave()
    atexit.register(leave)
    from pretzel.ablation.worker import process as cell
    from pretzel.runs.cli import import_parts

    _import(["pretzel.ablation.worker.training"])  # with it everything that is slow to import
    import_parts()
    atexit.register(gc.unfreeze)  # extension modules complain of what is never collected
    job = _Server().serve()
    if job is None:
        return 0
    sys.argv = [str(Path(cell.__file__)), str(job.folder)]
    sys.modules["__main__"].__spec__ = importlib.util.find_spec(_CELL)  # what DDP starts again
    sys.stdout = os.fdopen(1, "w", buffering=1)
    leave.code = cell.FAILED  # unless it comes to an end of its own
    leave.code = cell.main(job.folder)
    return leave.code


if __name__ == "__main__":
    sys.exit(main())
