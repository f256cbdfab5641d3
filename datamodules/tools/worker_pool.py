"""Applies a function to chunks of work in processes, in order and with bounded memory."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from datamodules.checks import check_at_least
from pretzel.errors import UserError

T = TypeVar("T")
R = TypeVar("R")

_AHEAD = 3  # pieces of work a worker that wait or are at work


def map_in_order(
    function: Callable[[T], R], work: Iterable[T], num_workers: int
) -> Iterator[tuple[T, R]]:
    """Yield each piece of work with its result, in order.

    Args:
        function: Of a module, which the processes import.
        work: The pieces; taken as they are needed.
        num_workers: Processes; 0 computes in this one.

    Raises:
        UserError: If ``num_workers`` is negative, or a process is killed.
    """
    check_at_least(0, num_workers=num_workers)
    if num_workers == 0:
        for piece in work:
            yield piece, function(piece)
        return
    context = multiprocessing.get_context("fork")  # what is imported need not be imported again
    pool = ProcessPoolExecutor(num_workers, context, initializer=_end_with_parent)
    waiting: deque[tuple[T, Future[R]]] = deque()
    try:
        for piece in work:
            waiting.append((piece, pool.submit(function, piece)))
            if len(waiting) >= _AHEAD * num_workers:
                done, future = waiting.popleft()
                yield done, future.result()
        for done, future in waiting:
            yield done, future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process was killed, perhaps for want of memory; fewer workers need less"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent() -> None:
    """Leave Ctrl-C to the parent, and end when it has ended, also by a signal."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
