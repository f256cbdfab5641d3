"""The job of one run on Slurm: it saves and is queued again when its time is up."""

import contextlib
import os
import signal
import subprocess
import sys
import time

from submitit.helpers import Checkpointable, DelayedSubmission

from pretzel.ablation.worker.process import DONE, INTERRUPTED

_KILL_SECONDS = 90.0  # within which Slurm kills what it preempts, after asking with SIGTERM


class RunJob(Checkpointable):
    """Runs ``python -m pretzel.ablation.worker.process FOLDER``.

    Before its time is up, Slurm sends the signal that submitit asked for: the run saves a
    checkpoint, and the job is queued again. A job that is preempted gets SIGTERM, saves as well,
    and waits for Slurm to take it away and queue it.
    """

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.stopped = False

    def __call__(self, folder: str) -> int:
        """Execute the run of a folder; return its exit code.

        Raises:
            SystemExit: If the run fails, so that Slurm sees it and ends the job's other tasks.
        """
        signal.signal(signal.SIGINT, self._stop)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pretzel.ablation.worker.process", folder],
            stdin=subprocess.PIPE,  # its end would tell the run that we are gone
        )
        code = self.process.wait()
        if code == INTERRUPTED and not self.stopped:
            time.sleep(_KILL_SECONDS)  # to end now would look as if the job had done its work
        elif code not in (DONE, INTERRUPTED):
            sys.exit(code)
        return code

    def _stop(self, number: int, frame: object) -> None:
        """Note that the user stops the grid; the run has been told as well."""
        self.stopped = True

    def checkpoint(self, folder: str) -> DelayedSubmission:
        """Let the run save, and return its next job."""
        # called by a signal's handler within wait() above, whose lock is not for us
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(self.process.pid, signal.SIGINT)
                os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(RunJob(), folder)

    def __getstate__(self) -> dict[str, object]:
        """Leave the process behind: what is sent has not started."""
        return {"process": None, "stopped": False}
