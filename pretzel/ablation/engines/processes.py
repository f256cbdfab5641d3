"""Each cell in a fresh process that imports everything anew."""

import subprocess
import sys
from pathlib import Path

from pretzel.ablation.engines.device_slots import Slots
from pretzel.ablation.engines.local import Local, LocalRun, end_group, worker_environment


class Processes(Local):
    """Starts ``python -m pretzel.ablation.worker.process FOLDER``.

    Args:
        slots: How many at a time, and what each one sees.
    """

    def __init__(self, slots: Slots) -> None:
        super().__init__(slots)
        self.processes: dict[int, subprocess.Popen[bytes]] = {}  # by slot

    def launch(self, cell: LocalRun, folder: Path, environment: dict[str, str]) -> None:
        """Start a process in a session of its own."""
        with (folder / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "pretzel.ablation.worker.process", str(folder)],
                stdin=subprocess.PIPE,  # its end tells the cell that we are gone
                stdout=log,
                stderr=subprocess.STDOUT,
                env=worker_environment() | environment,
                start_new_session=True,  # Ctrl-C reaches the cells through us, once
            )
        cell.process, self.processes[cell.place] = process.pid, process

    def listen(self) -> None:
        """Look at each process."""
        for place, cell in list(self.running.items()):
            process = self.processes[place]
            code = process.poll()
            if code is not None:
                end_group(process.pid)
                assert process.stdin is not None
                process.stdin.close()
                self.ended(cell, code)

    def close(self) -> None:
        """Kill what is still running, and wait until it has ended."""
        super().close()
        for place in list(self.running):
            self.processes[place].wait()
        self.listen()
