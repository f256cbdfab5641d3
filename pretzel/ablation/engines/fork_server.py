"""Each run a fork of a server that has the imports: 0.02 s in place of seconds.

The server is that of :mod:`multiprocessing`. A fork is a fresh process, into which nothing leaks
from the runs before. The pipe through which it was told what to run stays open as long as we live:
it becomes the standard input, at whose end the run saves and stops, however we have ended.
"""

import atexit
import contextlib
import importlib.util
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import NoReturn

from pretzel.ablation.engines.local import LocalEngine, LocalRun, end_group
from pretzel.ablation.worker import process as worker
from pretzel.errors import UserError

_CONTEXT = multiprocessing.get_context("forkserver")
_SERVER_GONE = 255  # multiprocessing's exit code of a process that nobody waits for any more


class Forks(LocalEngine):
    """Starts the server at once, so that it imports while the grid is planned.

    Modules of users are not imported by it, but by each run: the server outlives a grid in a
    notebook, and they may be edited meanwhile.
    """

    def __init__(self, slots: Sequence[Mapping[str, str]]) -> None:
        super().__init__(slots)
        _CONTEXT.set_forkserver_preload(["pretzel.ablation.engines.preload"])
        forkserver.ensure_running()

    def launch(self, folder: Path, environment: dict[str, str]) -> LocalRun:
        """Have the server fork.

        Raises:
            UserError: If the server does not come up.
        """
        process = _CONTEXT.Process(target=_run, args=(folder, environment))
        try:
            process.start()
        except (EOFError, ConnectionError) as error:
            raise UserError(
                "the server that runs are forked from has ended; its own message stands above; "
                "--engine processes does without it"
            ) from error
        assert process.pid is not None
        return LocalRun(process.pid, partial(_exit_code, process))


def _exit_code(process: ForkServerProcess) -> int | None:
    code, pid = process.exitcode, process.pid
    assert pid is not None
    if code == _SERVER_GONE:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)  # it lives, but nobody will tell us when it has ended
            return worker.INTERRUPTED
    if code is not None:
        end_group(pid)
    return code


def _run(folder: Path, environment: dict[str, str]) -> NoReturn:
    """Be the process of a run; called in the fork."""
    os.setsid()  # Ctrl-C reaches the runs through the scheduler, once
    with (folder / "log.txt").open("ab") as log:
        for target in (1, 2):
            os.dup2(log.fileno(), target)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    runner = multiprocessing.parent_process()
    assert runner is not None
    os.dup2(runner.sentinel, 0)  # inherited by the processes that Lightning starts beside us
    os.environ.clear()  # the server may be older than a change of ours
    os.environ.update(environment)
    sys.argv = [str(worker.__file__), str(folder)]
    # the command that Lightning repeats for the other processes of a run
    sys.modules["__main__"].__spec__ = importlib.util.find_spec(worker.__name__)
    code = worker.main(folder)
    atexit._run_exitfuncs()  # of loggers, for example; multiprocessing ends without them
    sys.exit(code)
