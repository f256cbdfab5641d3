"""A thread that ends a run which hangs, and leaves behind where it hung."""

import faulthandler
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType


class Watchdog:
    """End the process with an exit code when it has made no progress for so many seconds.

    Progress is a finished batch (:meth:`beat`). Where there are no batches (start, metrics at the
    end of a validation, saving) it is also that the main thread is at another line than before. A
    process that was itself stopped meanwhile has not hung. Before the end, ``on_hang`` is called
    with a sentence and the main thread's stack.
    """

    def __init__(self, seconds: float, on_hang: Callable[[str, str], None], code: int) -> None:
        self.seconds, self.on_hang, self.code = seconds, on_hang, code
        self.needs_batches: Callable[[], bool] = lambda: False
        self._beaten = self._looked = time.monotonic()
        self._place: list[tuple[int, int]] = []

    def beat(self) -> None:
        """Note progress."""
        self._beaten = time.monotonic()

    def start(self) -> None:
        """Watch from now on."""
        self.beat()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        interval = min(1.0, self.seconds / 10)
        while True:
            time.sleep(interval)
            now = time.monotonic()
            was_stopped = now - self._looked > 5 * interval + 1
            self._looked = now
            frame = sys._current_frames().get(threading.main_thread().ident or 0)
            place = [(id(caller.f_code), line) for caller, line in traceback.walk_stack(frame)]
            if was_stopped or (place != self._place and not self.needs_batches()):
                self.beat()
            self._place = place
            if now - self._beaten > self.seconds:
                self._end(frame)

    def _end(self, frame: FrameType | None) -> None:
        message = f"no progress for {self.seconds:g} s"
        try:
            print(f"{message}; the stacks of all threads:", file=sys.stderr, flush=True)
            faulthandler.dump_traceback(sys.__stderr__ or sys.stderr, all_threads=True)
            self.on_hang(message, "".join(traceback.format_stack(frame)))
        finally:
            os._exit(self.code)  # sys.exit would only end this thread
