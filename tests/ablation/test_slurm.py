"""A real Slurm on loopback: cells preempted, out of time, stopped, queued again, done.

apt-get install slurmctld slurmd slurm-client; pip install 'pretzel-starflow[slurm]'
pytest -m slow tests/ablation/test_slurm.py
"""

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lab_files import BASE, write
from slurm_cluster import cluster, installed

from pretzel.ablation.ledger import RunFolder

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


@pytest.fixture
def loopback(project):
    pytest.importorskip("submitit")
    if not installed():
        pytest.skip("needs root and Debian's slurmctld, slurmd and slurm-client")
    with cluster(project / "slurm"):
        yield


def write_grid(*, seeds, delay, **trainer):
    model = {**BASE["model"]["init_args"], "delay": delay}
    write(
        "base.yaml",
        {
            **BASE,
            "trainer": {**BASE["trainer"], "max_steps": STEPS, **trainer},
            "model": {**BASE["model"], "init_args": model},
        },
    )
    write(
        "grid.yaml",
        {
            "base": "base.yaml",
            "axes": {"lr": {"low": {}, "high": {"model.lr": 0.02}}},
            "seeds": seeds,
            "baseline": {"lr": "low"},
            "metrics": {"test/loss": "min"},
            "checkpoint_seconds": 1,
        },
    )


@contextlib.contextmanager
def running(*options):
    command = [sys.executable, "-m", "pretzel", "grid", "run", "grid.yaml", "--engine", "slurm"]
    command += ["--slurm", "partition=low", "--slurm", "time=60", "--slurm", "cpus_per_task=1"]
    with Path("runner.txt").open("a") as said:
        runner = subprocess.Popen([*command, *options], stdout=said, stderr=subprocess.STDOUT)
        try:
            yield runner
        finally:
            runner.kill()
            runner.wait()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_an_array_is_preempted_queued_again_and_done(loopback):
    write_grid(seeds=[0, 1], delay=0.1)
    cells = {
        name: RunFolder(path=Path("runs/grid") / name)
        for name in ("low/seed0", "high/seed0", "low/seed1", "high/seed1")
    }
    with running("--slots", "2") as runner:
        wait(lambda: len(states()) == 4, runner)
        now = [name for name, (state, _) in states().items() if state == "RUNNING"]
        assert len(now) <= 2  # the cap of the array
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
    for name, cell in cells.items():
        assert cell.result["steps"] == STEPS, name
    for name in started:
        log = cells[name].path / "log.txt"
        assert cells[name].result["train_seconds"] > STEPS * 0.1
        assert stopped[name] < STEPS, log
    told = Path("runner.txt").read_text()
    assert "| **low** (baseline) | 2 |" in told


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_cell_of_two_tasks_runs_out_of_time_is_stopped_and_done(loopback):
    write_grid(seeds=[0], delay=0.2, devices=2, strategy="ddp")
    cell = RunFolder(path=Path("runs/grid/low/seed0"))
    two = ("--only", "low", "--slurm", "ntasks_per_node=2")

    def step():
        return cell.progress.get("step", 0)

    with running(*two) as runner:
        wait(lambda: step() > 5, runner)
        (job,) = states()
        slurm("scancel", "--signal=USR2", job)  # as Slurm does before the time is up
        wait(lambda: states()[job][0] != "RUNNING", runner)
        saved = step()
        assert 5 < saved < STEPS
        wait(lambda: states()[job][0] == "RUNNING", runner)
        wait(lambda: step() > saved, runner)
        runner.send_signal(signal.SIGINT)
        assert runner.wait(timeout=50) == 130, Path("runner.txt").read_text()
    assert saved < step() < STEPS
    saved = step()
    assert (cell.path / "last.ckpt").exists()
    assert cell.failure is None
    end = time.monotonic() + 30
    while states():
        assert time.monotonic() < end, states()
        time.sleep(0.5)
    with running(*two) as runner:
        assert runner.wait(timeout=600) == 0, Path("runner.txt").read_text()
    assert f"low/seed0: continues from step {saved}" in Path("runner.txt").read_text()
    assert cell.result["steps"] == STEPS
    assert cell.failure is None
