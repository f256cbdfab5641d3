"""Each run in a fresh process that imports everything anew."""

import subprocess
import sys
from functools import partial
from pathlib import Path

from pretzel.ablation.engines.local import LocalEngine, LocalRun, end_group


class Processes(LocalEngine):
    """Starts ``python -m pretzel.ablation.worker.process FOLDER``."""

    def launch(self, folder: Path, environment: dict[str, str]) -> LocalRun:
        """Start a process in a session of its own."""
        with (folder / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "pretzel.ablation.worker.process", str(folder)],
                stdin=subprocess.PIPE,  # its end tells the run that we are gone
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches the runs through us, once
            )
        return LocalRun(process.pid, partial(_exit_code, process))


def _exit_code(process: subprocess.Popen[bytes]) -> int | None:
    code = process.poll()
    if code is not None:
        end_group(process.pid)
        assert process.stdin is not None
        process.stdin.close()
    return code
