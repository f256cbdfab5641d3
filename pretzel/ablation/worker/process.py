"""One run in a process of its own: ``python -m pretzel.ablation.worker.process FOLDER``.

Trains from the last checkpoint where there is one, tests with the final weights, writes
``result.json``. Stops at the next batch, with a checkpoint, on SIGTERM (a cluster's preemption) as
on SIGINT, or when the scheduler that has started it is gone.
"""

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

from pretzel.ablation.ledger import RunFolder
from pretzel.ablation.result_file import write_result
from pretzel.ablation.worker.hang_watchdog import Watchdog
from pretzel.errors import UserError
from pretzel.files.atomic import write_json
from pretzel.files.storage import storage_error

DONE, FAILED, TAKEN, INTERRUPTED = 0, 1, 75, 130

_BEFORE_TIME_IS_UP = (signal.SIGUSR1, signal.SIGUSR2)  # Slurm sends it to all processes of a job
_ORPHAN_SECONDS = 5.0
_ADVICE = "; when that is mended, the run continues from its last whole checkpoint"


class StopRequest:
    """Whether the run was asked to stop; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.is_first = is_first_process()
        self.is_made = False
        self._interrupts = 0
        self._parent = os.getppid()
        for number in (signal.SIGINT, signal.SIGTERM, *_BEFORE_TIME_IS_UP):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: object) -> None:
        self.is_made = True
        # Preemption sends SIGTERM to us and to the scheduler, which then interrupts us as well.
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            raise KeyboardInterrupt

    @property
    def is_orphan(self) -> bool:
        """Whether the process that has started us is gone."""
        return os.getppid() != self._parent

    def follow_stdin(self) -> None:
        """Make the request when our standard input ends: the scheduler holds its other end.

        Processes other than the run's first end with that at the latest.
        """

        def wait() -> None:
            while os.read(0, 1):  # not sys.stdin, whose lock we would hold at our own exit
                pass
            self.is_made = True
            if self.is_first:
                return
            while not self.is_orphan:
                time.sleep(0.2)
            time.sleep(_ORPHAN_SECONDS)
            os._exit(INTERRUPTED)

        threading.Thread(target=wait, daemon=True).start()


def main(path: Path) -> int:
    """Train and test the run of a folder with ``run.json``.

    Returns:
        0 done, 1 failed (``failure.json`` tells why, unless the disk could not take it), 75 another
        process has it, 130 interrupted: by SIGINT, SIGTERM or the end of the scheduler.
    """
    folder = RunFolder(path=path)
    stop = StopRequest()
    stop.follow_stdin()
    if not stop.is_first:
        return _attempt(folder, stop)
    try:
        with folder.lease() as acquired:
            if not acquired:
                return TAKEN
            if folder.is_done(folder.spec or {}):
                return DONE  # another scheduler was quicker
            if folder.failure is not None:
                return FAILED  # so it was, and what failed is not tried twice
            return _attempt(folder, stop)
    except OSError as error:  # the lease
        explained = storage_error(error, path, _ADVICE)
        if explained is None:
            raise
        _log(str(explained))
        return FAILED


def is_first_process() -> bool:
    """Tell whether we are the first process of the run, or one started beside it.

    The others, which Lightning or Slurm starts, work under the first one's lease.
    """
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "SLURM_PROCID"))


def _attempt(folder: RunFolder, stop: StopRequest) -> int:
    # Lightning kills the first process as soon as another one ends badly: it may still be saving
    interrupted = INTERRUPTED if stop.is_first else DONE
    try:
        _train_and_test(folder, stop)
    except KeyboardInterrupt:
        return interrupted
    except SystemExit:
        if stop.is_made:  # Lightning's graceful stop
            return interrupted
        raise
    except Exception as error:
        if not stop.is_first and (stop.is_made or stop.is_orphan):  # the first has gone already
            return interrupted
        explained = storage_error(error, folder.path, _ADVICE) or error
        stack = traceback.format_exc()
        _log(stack if explained is error else f"{stack}{explained}")
        with contextlib.suppress(UserError):  # what cannot be written is in the log
            _write_failure(folder, explained, stack)
        return FAILED
    return DONE


def _log(text: str) -> None:
    with contextlib.suppress(OSError):  # the log may be on the disk that is full
        print(text, file=sys.stderr, flush=True)


def _train_and_test(folder: RunFolder, stop: StopRequest) -> None:
    spec = folder.spec
    assert spec is not None, "the scheduler writes run.json first"
    if stop.is_first:
        started = {**folder.progress, "phase": "start", "time": time.time()}
        write_json(folder.path / "progress.json", started)
    watchdog = None
    if spec.get("hang_seconds"):
        watchdog = Watchdog(
            float(spec["hang_seconds"]),
            lambda message, stack: _write_failure(folder, TimeoutError(message), stack),
            FAILED,
        )
        watchdog.start()

    # not before: the watchdog ends an import that hangs as well
    from pretzel.ablation.worker.checkpoints import Checkpoints
    from pretzel.ablation.worker.training import train_and_test

    def end(death: UserError) -> None:
        _log(str(death))
        with contextlib.suppress(UserError):
            _write_failure(folder, death, "")
        os._exit(FAILED)

    result = train_and_test(folder, spec, lambda: stop.is_made, watchdog, end)
    if not stop.is_first:
        return
    hashes = {key: spec.get(key) for key in ("identity", "evaluation", "tuned")}
    write_result(folder.path, {**hashes, **result})
    Checkpoints(folder.path).clear()


def _write_failure(folder: RunFolder, error: Exception, stack: str) -> None:
    if folder.failure is not None:
        return  # of several processes, the first to fail knows why; the others miss it
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    rank = "" if is_first_process() else f"rank {os.environ.get('LOCAL_RANK', '?')}: "
    failure = {
        "error": f"{rank}{type(error).__name__}: {error}",
        "traceback": stack,
        "log": log_end(folder),
        "step": getattr(error, "step", folder.progress.get("step")),
        "config": (folder.spec or {}).get("config"),
    }
    write_json(folder.path / "failure.json", failure)


def log_end(folder: RunFolder) -> list[str]:
    """Return the last 30 lines of a run's log, none where it cannot be read."""
    try:
        return (folder.path / "log.txt").read_text(errors="replace").splitlines()[-30:]
    except OSError:
        return []


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
