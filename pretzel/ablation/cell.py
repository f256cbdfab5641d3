"""One cell in a process of its own: ``python -m pretzel.ablation.cell FOLDER``.

Trains from the last checkpoint where there is one, tests with the final weights, writes
``result.json``. Stops at the next batch, with a checkpoint, when it is interrupted or when the
runner is gone.
"""

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from pretzel.ablation.ledger import CellFolder, write_json

DONE, FAILED, TAKEN, INTERRUPTED = 0, 1, 75, 130


class Stop:
    """Whether the cell was asked to stop; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGINT, self._ask)

    def _ask(self, number: int, frame: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def with_runner(self) -> None:
        """Stop when the runner dies: its end of our standard input closes."""

        def wait() -> None:
            while os.read(sys.stdin.fileno(), 1):  # unbuffered: no lock held at our own exit
                pass
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=wait, daemon=True).start()


def main(path: Path) -> int:
    """Run the cell of a folder.

    Args:
        path: The folder with ``cell.json``.

    Returns:
        0 done, 1 failed (``failure.json`` tells why), 75 another process has it, 130 interrupted.
    """
    folder = CellFolder(path=path)
    stop = Stop()
    stop.with_runner()
    # processes that Lightning's strategies start for this cell work under the first one's lease
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    with folder.lease() if first else contextlib.nullcontext(True) as mine:
        if not mine:
            return TAKEN
        if folder.result is not None:
            return DONE  # another runner was quicker
        try:
            _run(folder, stop, first=first)
        except KeyboardInterrupt:
            return INTERRUPTED
        except SystemExit:
            if stop.asked:  # Lightning's graceful stop
                return INTERRUPTED
            raise
        except Exception as error:
            traceback.print_exc()
            _write_failure(folder, error)
            return FAILED
    return DONE


def _run(folder: CellFolder, stop: Stop, *, first: bool) -> None:
    spec = folder.spec
    assert spec is not None, "the runner writes cell.json first"
    _write_progress(folder, phase="start")

    from pretzel.ablation.training import train_and_test

    result = train_and_test(folder, spec, lambda: stop.asked)
    if not first:
        return
    write_json(folder.path / "result.json", {"identity": spec["identity"], **result})
    (folder.path / "last.ckpt").unlink(missing_ok=True)


def _write_progress(folder: CellFolder, **values: Any) -> None:  # noqa: ANN401
    write_json(folder.path / "progress.json", {**folder.progress, **values, "time": time.time()})


def _write_failure(folder: CellFolder, error: Exception) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        lines = (folder.path / "log.txt").read_text(errors="replace").splitlines()[-30:]
    except OSError:
        lines = []
    write_json(
        folder.path / "failure.json",
        {
            "error": f"{type(error).__name__}: {error}",
            "traceback": traceback.format_exc(),
            "log": lines,
            "step": folder.progress.get("step"),
        },
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
