"""What a Slurm job runs: one cell, which saves and is queued again when it has to make room."""

import signal
import subprocess
import sys
import time

from submitit.helpers import Checkpointable, DelayedSubmission

from pretzel.ablation.running.cell import INTERRUPTED

_KILL_SECONDS = 90.0  # within which Slurm kills what it preempts, after asking with SIGTERM


class CellJob(Checkpointable):
    """Runs ``python -m pretzel.ablation.running.cell FOLDER``.

    Before its time is up, Slurm sends the signal that submitit asked for: the cell saves a
    checkpoint, and the job is queued again. A job that is preempted gets SIGTERM, saves as well,
    and waits for Slurm to take it away and queue it.
    """

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def __call__(self, folder: str) -> int:
        """Run the cell of a folder; return its exit code."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pretzel.ablation.running.cell", folder], stdin=subprocess.PIPE
        )
        code = self.process.wait()
        if code == INTERRUPTED:
            time.sleep(_KILL_SECONDS)  # to end now would look as if the job had done its work
        return code

    def checkpoint(self, folder: str) -> DelayedSubmission:
        """Let the cell save, and say how it goes on in the next job."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait()
        return DelayedSubmission(CellJob(), folder)

    def __getstate__(self) -> dict[str, None]:
        """Leave the process behind: what is sent has not started."""
        return {"process": None}
