"""What ``make demo`` runs, shrunk: killed once in the middle, started again, the same table."""

import contextlib
import csv
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

ROOT = Path(__file__).parents[2]
SHRINK = ROOT / "tests" / "configs" / "shrink.yaml"
NUM_CELLS = 6
SMALLER = {
    "Generation": {"num_images": 8, "batch_size": 4},
    "SampleGrid": {"num_images": 2, "columns": 2},
    "VQAAccuracy": {"num_questions": 8, "num_validation_questions": 8},
}
TIMES = {"step_seconds", "peak_memory_bytes", "train_seconds"}


def demo(folder):
    """Write the demo's grid with fewer steps and less to measure; all callbacks stay."""
    grid = yaml.safe_load((ROOT / "ablations" / "quickstart.yaml").read_text())
    base = ROOT / "ablations" / grid["base"]
    small = yaml.safe_load(SHRINK.read_text())
    callbacks = yaml.safe_load(base.read_text())["trainer"]["callbacks"]
    for callback in callbacks:
        name = callback["class_path"].rpartition(".")[2]
        callback.setdefault("init_args", {}).update(SMALLER.get(name, {}))
    small["data"]["init_args"]["steps_per_epoch"] = 6
    small["trainer"] |= {"max_steps": 12, "val_check_interval": 6, "callbacks": callbacks}
    folder.mkdir()
    (folder / "small.yaml").write_text(yaml.safe_dump(small))
    grid |= {"base": [str(base), "small.yaml"], "checkpoint_seconds": 0.5}
    (folder / "quickstart.yaml").write_text(yaml.safe_dump(grid, sort_keys=False))
    return folder


def start(folder):
    command = [sys.executable, "-m", "pretzel", "grid", "run", "quickstart.yaml", "--slots", "2"]
    with (folder / "said.txt").open("a") as out:
        return subprocess.Popen(
            command,
            cwd=folder,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )


def finish(folder):
    assert start(folder).wait(timeout=900) == 0, (folder / "said.txt").read_text()


def family(process):
    """Return a process and all that it has started, directly or not."""
    table = [
        line.split()
        for line in subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
        ).stdout.splitlines()
    ]
    found = [process]
    for one in found:  # grows while it is read
        found += [int(pid) for pid, parent in table if int(parent) == one]
    return found


def started(folder):
    """Return the moment at which the first cell was started; None before."""
    written = [path.stat().st_mtime for path in folder.glob("runs/quickstart/*/*/run.json")]
    return min(written, default=None)


def results(folder):
    return {
        path.parent.relative_to(folder): json.loads(path.read_text())
        for path in sorted(folder.glob("runs/quickstart/*/*/result.json"))
    }


def figures(folder):
    """Return all that the table is made of but times, and the weights' digests."""
    found = {}
    for cell, result in results(folder).items():
        weights = torch.load(folder / cell / "final.ckpt", weights_only=True)["state_dict"]
        for name, value in weights.items():
            bits = value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            found[cell, "weights", name] = hashlib.sha256(bits).hexdigest()
        for part in ("metrics", "facts", "parameters"):
            for name, value in result[part].items():
                if "second" not in name:
                    found[cell, part, name] = value
    return found


def tables(folder):
    """Return the report's numbers but times."""
    runs = folder / "runs" / "quickstart"
    with (runs / "compare_summary.csv").open() as file:
        rows = [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]
    return (runs / "compare.csv").read_text(), rows


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("all_processes", [False, True], ids=["runner", "all its processes"])
def test_the_demo_ends_with_the_same_table(straight, tmp_path, all_processes):
    expected, seconds = straight
    seed = random.randrange(2**32)
    moment = random.Random(seed).uniform(0.1, 0.8) * seconds
    print(f"seed {seed}: killed {moment:.1f} s after the first cell started, of {seconds:.1f} s")

    killed = demo(tmp_path / "killed")
    runner = start(killed)
    while (began := started(killed)) is None:
        assert runner.poll() is None, (killed / "said.txt").read_text()
        time.sleep(0.05)
    time.sleep(max(began + moment - time.time(), 0))
    assert runner.poll() is None, "the demo was quicker than before"
    victims = family(runner.pid) if all_processes else []
    os.killpg(runner.pid, signal.SIGKILL)
    for process in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    runner.wait()
    assert len(results(killed)) < NUM_CELLS

    finish(killed)
    one, other = figures(expected), figures(killed)
    assert {
        key: (one.get(key), other.get(key)) for key in one | other if one.get(key) != other.get(key)
    } == {}
    assert tables(killed) == tables(expected)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The uninterrupted demo, and the seconds from its first cell to its end."""
    folder = demo(tmp_path_factory.mktemp("straight") / "demo")
    finish(folder)
    assert len(results(folder)) == NUM_CELLS
    ended = max((folder / cell / "result.json").stat().st_mtime for cell in results(folder))
    return folder, ended - started(folder)
