"""Processes forked from one server that has the imports, which take ten seconds each time."""

import functools
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["preloaded"])


@functools.cache
def serve() -> None:
    """Start the server."""
    before = os.environ.get("PYTHONPATH")
    # as an argument, which Python 3.11 passes on as well, it does nothing
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    forkserver.ensure_running()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before
    process = _CONTEXT.Process(target=time.sleep, args=(0,))
    process.start()
    process.join()


def fork(target: Callable, *args: object) -> multiprocessing.Process:
    """Call a function in a process of its own."""
    serve()
    process = _CONTEXT.Process(target=target, args=args)
    process.start()
    return process


def fork_command(log: Path | str, *commands: list[str]) -> multiprocessing.Process:
    """Run commands of ``pretzel``, one after the other, which write into a file.

    What they start in processes of its own is forked from the same server. The process ends with
    the first code that is not 0.
    """
    serve()
    Path(log).touch()
    address = forkserver._forkserver._forkserver_address
    return fork(_run_commands, address, str(log), dict(os.environ), commands)


def _run_commands(
    address: str, log: str, environment: dict[str, str], commands: list[list[str]]
) -> None:
    write_into(os.open(log, os.O_WRONLY))
    os.environ.clear()
    os.environ.update(environment)
    # else it would start a server of its own
    forkserver._forkserver._forkserver_address = address
    forkserver.ensure_running = forkserver._forkserver.ensure_running = lambda: None
    from pretzel.__main__ import main

    for words in commands:
        if code := main(words):
            sys.exit(code)


def write_into(log: int) -> None:
    """Let this process write into an open file, and read from what does not end."""
    reading, _ = os.pipe()
    for number, stream in enumerate((reading, log, log)):
        os.dup2(stream, number)
    sys.stdin, sys.stdout = open(0), open(1, "w", buffering=1)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1)  # noqa: SIM115
