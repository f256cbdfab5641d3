"""A cell that is killed and run again ends as the uninterrupted one, bit by bit."""

import json
import os
import random
import signal
import subprocess
import sys

import pytest
from killing import (
    HERE,
    assert_equal,
    ends,
    finish,
    noisy_cell,
    outcome,
    stop,
    straight_run,
    survive,
    until,
)

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def straight():
    return straight_run()


MOMENTS = {
    "half a checkpoint": ["half_a_checkpoint:6"],
    "first checkpoint": ["before_rename_to:last.ckpt:1"],
    "before the rename": ["before_rename_to:last.ckpt:7"],
    "mid accumulation": ["in_training:24"],
    "first of an epoch": ["in_training:31"],
    "validation": ["in_validation:5"],
    "last validation": ["in_validation:24"],
    "test": ["in_test:2"],
    "trained, not noted": ["before_rename_to:fit.json"],
    "before the result": ["before_rename_to:result.json"],
    "twice": ["in_training:13", "in_validation:8"],
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_a_moment_that_hurts(straight, tmp_path, moment):
    folder = noisy_cell(tmp_path / "cell")
    for patch in MOMENTS[moment]:
        ends(folder, -9, patch)
    finish(folder)
    assert_equal(straight[0], outcome(folder))


def test_killed_at_random_moments(straight, tmp_path):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    folder = noisy_cell(tmp_path / "cell")
    survive(folder, 3, straight[1], random.Random(seed))
    assert_equal(straight[0], outcome(folder))


@pytest.mark.slow
def test_killed_at_twenty_random_moments(straight, tmp_path):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    kills = 0
    while kills < 20:
        folder = noisy_cell(
            tmp_path / f"cell{kills}", checkpoint_seconds=draw.choice([0.0, 0.05, 0.3])
        )
        kills += len(survive(folder, draw.randint(1, 5), straight[1], draw))
        assert_equal(straight[0], outcome(folder))


SIGNALS = {
    "SIGTERM": [signal.SIGTERM],
    "Ctrl-C": [signal.SIGINT],
    "to the cell and, through its runner, once more": [signal.SIGTERM, signal.SIGINT],
    "again and again": [signal.SIGTERM] * 3,
}


@pytest.mark.parametrize("signals", SIGNALS)
def test_stopped_with_a_checkpoint_of_that_moment(straight, tmp_path, signals):
    folder = noisy_cell(tmp_path / "cell", 0.05, checkpoint_seconds=1000.0)

    def trains():
        progress = folder / "progress.json"
        return progress.exists() and json.loads(progress.read_text()).get("step")

    stop(folder, trains, *SIGNALS[signals])
    assert (folder / "last.ckpt").exists()
    assert not (folder / "failure.json").exists()
    finish(folder)
    assert_equal(straight[0], outcome(folder))


def test_stopped_before_training_and_in_the_test(straight, tmp_path):
    folder = noisy_cell(tmp_path / "cell", 0.1)
    stop(folder, (folder / "progress.json").exists, signal.SIGTERM)
    assert not (folder / "last.ckpt").exists()

    def tests():
        return json.loads((folder / "progress.json").read_text())["phase"] == "test"

    stop(folder, tests, signal.SIGTERM)
    assert (folder / "final.ckpt").exists()
    finish(folder)
    assert_equal(straight[0], outcome(folder))


@pytest.mark.slow
def test_two_processes_of_one_cell(tmp_path):
    def cell(name):
        folder = noisy_cell(tmp_path / name, 0.03)
        spec = json.loads((folder / "run.json").read_text())
        # as many batches a process as one process has; they differ in what they draw
        two = {"strategy": "ddp", "devices": 2, "use_distributed_sampler": False}
        spec["config"]["trainer"] |= two
        (folder / "run.json").write_text(json.dumps(spec))
        return folder

    straight, killed = cell("straight"), cell("killed")
    with run(straight) as process:
        assert process.wait(300) == 0, (straight / "log.txt").read_text()[-3000:]
    with run(killed) as process:
        until((killed / "previous.ckpt").exists)
        os.killpg(process.pid, signal.SIGKILL)
    assert (killed / "last.ckpt").exists()
    with run(killed) as process:
        assert process.wait(300) == 0, (killed / "log.txt").read_text()[-3000:]
    assert_equal(outcome(straight), outcome(killed))


def run(folder):
    """Start a cell with Lightning's own launcher, which needs a command line of its own."""
    command = [sys.executable, "-m", "pretzel.ablation.worker.process", str(folder)]
    with (folder / "log.txt").open("a") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parents[1]}"},
        )
