"""Runs as jobs of a Slurm cluster, through submitit (the extra ``pretzel-starflow[slurm]``)."""

import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretzel.ablation.engines.base import Engine, StartedRun
from pretzel.ablation.ledger import RunFolder
from pretzel.ablation.worker.process import DONE, INTERRUPTED, TAKEN
from pretzel.errors import UserError

_QUERY_SECONDS = 5.0  # between queries of the queue, for all jobs at once
_CAPACITY = 1000
_MAX_TIMEOUTS = 1000  # a run may take as many jobs as it needs


@dataclass
class _Job(StartedRun):
    engine: "Slurm"
    name: str
    folder: RunFolder
    code: int | None = None

    def poll(self) -> int | None:
        if self.code is None and not self.engine.queued(self.name):
            if self.folder.is_done(self.folder.spec or {}):
                self.code = DONE
            elif self.folder.locked():
                self.code = TAKEN
            else:
                self.code = INTERRUPTED if self.engine.stopped else 1
        return self.code

    def interrupt(self) -> None:
        self.engine.stopped = True
        # the job itself ends as soon as the run has saved
        _command("scancel", "--signal=INT", self.name)
        _command("scancel", "--state=PENDING", self.name)

    def kill(self) -> None:
        if self.code is None:
            _command("scancel", self.name)


class Slurm(Engine):
    """Submits an array for the runs that are ready at one time.

    Args:
        folder: Where job scripts and logs are kept; on a file system that all nodes share.
        parallel: Runs at a time of one array.
        parameters: Of ``sbatch``, as submitit names them, such as ``partition`` and ``time``.

    Raises:
        UserError: If submitit or Slurm is missing, or a parameter is unknown.
    """

    def __init__(self, folder: Path, parallel: int, parameters: Mapping[str, Any]) -> None:
        try:
            import submitit
        except ImportError as error:
            raise UserError(
                "--engine slurm needs submitit: pip install 'pretzel-starflow[slurm]'"
            ) from error
        if shutil.which("sbatch") is None:
            raise UserError("--engine slurm: there is no sbatch on this machine")
        self.executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=_MAX_TIMEOUTS)
        try:
            self.executor.update_parameters(
                job_name="pretzel",
                array_parallelism=parallel,
                stderr_to_stdout=True,
                srun_args=["--kill-on-bad-exit=1"],  # what one task lacks, the others wait for
            )
            self.executor.update_parameters(**parameters)
        except ValueError as error:
            raise UserError(f"--slurm: {error}") from error
        self.jobs: list[_Job] = []
        self.names: set[str] = set()
        self.queried = -_QUERY_SECONDS
        self.stopped = False

    def capacity(self) -> int:
        """Return how many more runs it takes: the cluster has the queue."""
        return _CAPACITY

    def start(self, folders: Sequence[Path]) -> list[StartedRun]:
        """Submit the runs as one array."""
        from pretzel.ablation.engines.slurm_job import RunJob

        paths = [str(folder.resolve()) for folder in folders]
        submitted = self.executor.map_array(RunJob(), paths)
        jobs = [
            _Job(self, str(job.job_id), RunFolder(path=folder))
            for job, folder in zip(submitted, folders, strict=True)
        ]
        self.jobs += jobs
        self.names |= {job.name for job in jobs}  # in the queue, until the cluster says otherwise
        self.queried = time.monotonic()
        return list(jobs)

    def queued(self, name: str) -> bool:
        """Tell whether a job is waiting, running, or about to be queued again."""
        if time.monotonic() - self.queried >= _QUERY_SECONDS:
            self.queried = time.monotonic()
            options = ["--noheader", "--array", "--format=%i", f"--user={os.getuid()}"]
            listing = _command("squeue", *options)
            if listing is not None:  # the controller may be restarting: query again later
                self.names = set(listing.split())
        return name in self.names

    def close(self) -> None:
        """Cancel what is still queued."""
        for job in self.jobs:
            job.kill()


def _command(*words: str) -> str | None:
    """Run a command of Slurm; return its output, or None if it failed."""
    completed = subprocess.run(words, capture_output=True, text=True, check=False)
    return completed.stdout if completed.returncode == 0 else None
