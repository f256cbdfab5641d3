"""A real Slurm on loopback: an array of cells, one preempted and queued again, all done.

apt-get install slurmctld slurmd slurm-client; pip install 'pretzel[slurm]'
pytest -m slow tests/ablation/test_slurm.py
"""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from lab_files import BASE, write
from slurm_cluster import cluster, installed

from pretzel.ablation.ledger import CellFolder

STEPS = 400


def slurm(*words):
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def states():
    lines = slurm("squeue", "--noheader", "--array", "--format=%i %T %P").splitlines()
    return {line.split()[0]: line.split()[1:] for line in lines}


def wait(condition, runner, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        told = Path("runner.txt").read_text()
        assert time.monotonic() < end, told
        assert runner.poll() is None, told
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_an_array_is_preempted_queued_again_and_done(project):
    pytest.importorskip("submitit")
    if not installed():
        pytest.skip("needs root and Debian's slurmctld, slurmd and slurm-client")
    model = {**BASE["model"]["init_args"], "delay": 0.1}
    write(
        "base.yaml",
        {
            **BASE,
            "trainer": {**BASE["trainer"], "max_steps": STEPS},
            "model": {**BASE["model"], "init_args": model},
        },
    )
    write(
        "grid.yaml",
        {
            "base": "base.yaml",
            "axes": {"lr": {"low": {}, "high": {"model.lr": 0.02}}},
            "seeds": [0, 1],
            "baseline": {"lr": "low"},
            "metrics": {"test/loss": "min"},
            "checkpoint_seconds": 1,
        },
    )
    cells = {
        name: CellFolder(path=Path("runs/grid") / name)
        for name in ("low/seed0", "high/seed0", "low/seed1", "high/seed1")
    }
    with cluster(project / "slurm"), Path("runner.txt").open("w") as said:
        runner = subprocess.Popen(
            [
                *(sys.executable, "-m", "pretzel", "grid", "run", "grid.yaml"),
                *("--engine", "slurm", "--slots", "2", "--slurm", "partition=low"),
                *("--slurm", "time=60", "--slurm", "cpus_per_task=1"),
            ],
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        try:
            wait(lambda: len(states()) == 4, runner)
            running = [name for name, (state, _) in states().items() if state == "RUNNING"]
            assert len(running) <= 2  # the cap of the array
            started = ("low/seed0", "high/seed0")
            wait(lambda: all(cells[n].progress.get("step", 0) > 5 for n in started), runner)
            urgent = slurm(
                *("sbatch", "--parsable", "--partition=high", "--cpus-per-task=2", "--wrap"),
                "sleep 3",
            ).strip()
            wait(lambda: states().get(urgent, [""])[0] == "RUNNING", runner)
            assert all(
                state != "RUNNING" for state, partition in states().values() if partition == "low"
            )
            stopped = {name: cells[name].progress["step"] for name in started}
            assert all((cells[name].path / "last.ckpt").exists() for name in started)
            assert runner.wait(timeout=900) == 0, Path("runner.txt").read_text()
        finally:
            runner.kill()
    for name, cell in cells.items():
        assert cell.result["steps"] == STEPS, name
    for name in started:
        log = cells[name].path / "log.txt"
        assert cells[name].result["train_seconds"] > STEPS * 0.1
        assert stopped[name] < STEPS, log
    told = Path("runner.txt").read_text()
    assert "| **low** (baseline) | 2 |" in told
