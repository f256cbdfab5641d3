"""The folder of a run: its state in files, each written whole or not at all.

Files: ``run.json`` (its specification), ``lease`` (locked by the process that runs it),
``progress.json``, ``last.ckpt`` (from which a killed run continues), ``fit.json`` and
``final.ckpt`` (trained, not yet tested), ``samples.jsonl.gz`` (results of the items of the test),
``result.json`` (done), ``adopted.json`` (differences that the user accepts), ``failure.json``,
``log.txt``.
"""

import contextlib
import fcntl
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from pretzel.ablation.result_file import read_result, result_fault
from pretzel.errors import UserError
from pretzel.files.atomic import read_json, write_json

_IDENTITIES = ("identity", "evaluation")
_LOOK_SECONDS = 0.2  # more than a look at a lease takes, which shares it for a moment


class State(StrEnum):
    """State of a run.

    A stale one is finished with other training than is asked for now; a trained one with the same
    training, and measured otherwise or not at all.
    """

    PENDING = "pending"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    DONE = "done"
    FAILED = "failed"
    STALE = "stale"
    TRAINED = "trained"


def _lock(file: int) -> bool:
    """Lock a file; tell whether that worked, against those too who only look whether it is."""
    end = time.monotonic() + _LOOK_SECONDS
    while time.monotonic() <= end:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(_LOOK_SECONDS / 20)
    return False


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """The files of one run, in a folder that need not exist yet."""

    path: Path

    @property
    def spec(self) -> dict[str, Any] | None:
        """The specification of the run, as the runner wrote it."""
        return read_json(self.path / "run.json")

    @property
    def result(self) -> dict[str, Any] | None:
        """Metrics, time and parameters of a finished run."""
        return read_result(self.path)

    @property
    def result_fault(self) -> str:
        """A clause on the fault of the file of the result; empty where it has none."""
        return result_fault(self.path)

    @property
    def progress(self) -> dict[str, Any]:
        """Phase, step, total, seconds and last metrics."""
        return read_json(self.path / "progress.json") or {}

    @property
    def failure(self) -> dict[str, Any] | None:
        """Error, traceback and last log lines of a failed run."""
        return read_json(self.path / "failure.json")

    @property
    def adopted(self) -> list[dict[str, Any]]:
        """Differences that the user accepts: ``{"from": [training, evaluation], "to": ...}``."""
        adopted = (read_json(self.path / "adopted.json") or {}).get("adopted")
        return adopted if isinstance(adopted, list) else []

    def acceptance(self, has: list[Any], wanted: list[Any]) -> dict[str, Any] | None:
        """Return the acceptance by which a result counts, or at least its training.

        Args:
            has: Training and evaluation of the result.
            wanted: Those that are asked for now.
        """
        pairs = [one for one in self.adopted if one.get("from") and one.get("to")]
        whole = [one for one in pairs if one["from"] == has and one["to"] == wanted]
        trained = [one for one in pairs if (one["from"][0], one["to"][0]) == (has[0], wanted[0])]
        counts = whole or (trained if has[0] != wanted[0] else [])
        return counts[-1] if counts else None

    def adopt(self, identity: str, evaluation: str | None, **details: Any) -> None:  # noqa: ANN401
        """Accept the result for the training and evaluation asked for; record that and why.

        Raises:
            UserError: If the folder cannot be written, or is a link to what may be no run.
        """
        self._check_place()
        result = self.result or {}
        has = [result.get(key) for key in _IDENTITIES]
        accepted = {"from": has, "to": [identity, evaluation], **details}
        write_json(self.path / "adopted.json", {"adopted": [*self.adopted, accepted]})

    def state(self, identity: str, evaluation: str | None = None) -> State:
        """Return the state of the run.

        Args:
            identity: The training that is now asked for.
            evaluation: How it is to be measured; None if nothing is.
        """
        return State.RUNNING if self.locked() else self.state_of_rest(identity, evaluation)

    def state_of_rest(self, identity: str, evaluation: str | None = None) -> State:
        """Return the state of the run when nobody runs it; arguments as :meth:`state`."""
        result, wanted = self.result, [identity, evaluation]
        if result is not None:
            has = [result.get(key) for key in _IDENTITIES]
            if has[0] == identity and evaluation in (None, has[1]):
                return State.DONE
            accepted = self.acceptance(has, wanted)
            if accepted is None:
                return State.STALE if has[0] != identity else State.TRAINED
            whole = accepted["from"] == has and accepted["to"] == wanted
            return State.DONE if whole or evaluation in (None, has[1]) else State.TRAINED
        spec = self.spec
        if spec is None or spec.get("identity") != identity:
            return State.PENDING
        if self.failure is not None:
            return State.FAILED
        return State.INTERRUPTED if self.progress else State.PENDING

    def locked(self) -> bool:
        """Tell whether some living process runs it."""
        try:
            with (self.path / "lease").open("r") as lease:
                fcntl.flock(lease, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    @contextlib.contextmanager
    def lease(self) -> Iterator[bool]:
        """Hold the run for this process; the system lets go of it however the process ends.

        Yields:
            False if another process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lease").open("a") as lease:
            yield _lock(lease.fileno())

    def is_done(self, spec: dict[str, Any]) -> bool:
        """Tell whether the result is that of a specification."""
        result = self.result
        return result is not None and all(result.get(k) == spec.get(k) for k in _IDENTITIES)

    def prepare(self, spec: dict[str, Any]) -> None:
        """Write the specification; remove the files of other training.

        A result of other measuring stays until the new figures are there.

        Raises:
            UserError: If the folder cannot be written, or is a link to what may be no run.
        """
        self._check_place()
        old = self.spec
        if self.path.exists() and (old is None or old.get("identity") != spec["identity"]):
            self.clear()
        (self.path / "failure.json").unlink(missing_ok=True)
        write_json(self.path / "run.json", spec)

    def _check_place(self) -> None:
        if self.path.is_symlink():  # of a stranger's grid, to anywhere
            raise UserError(f"{self.path}: the folder of a run must be no link; remove it")

    def clear(self) -> None:
        """Remove everything but the lease."""
        for item in self.path.iterdir():
            if item.is_dir() and not item.is_symlink():
                shutil.rmtree(item)
            elif item.name != "lease":
                item.unlink()
