"""Running a grid: killed, continued by two runners at once, skipped when done, stale when changed.

One story in one grid, since every process pays the imports.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from lab_files import BASE, HERE, write

from pretzel.__main__ import main
from pretzel.ablation.ledger import CellFolder, State

STEPS = 30
GRID = {
    "base": "base.yaml",
    "stages": {"warm": "warm.yaml"},
    "axes": {
        "features": {
            "linear": {},
            "cubic": {"model.features": {"class_path": "lab.Cubic", "init_args": {"scale": 0.1}}},
            "broken": {"model.features": {"class_path": "lab.Broken"}},
        }
    },
    "seeds": [4],
    "baseline": {"features": "linear"},
    "metrics": {"test/loss": "min", "test/cubic": "max"},
    "checkpoint_seconds": 0.2,
}


def runner():
    with Path("runner.txt").open("w") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "pretzel", "grid", "run", "grid.yaml", "--slots", "1"],
            stdout=said,
            stderr=subprocess.STDOUT,
        )


def wait(condition, process, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        assert process.poll() is None, Path("runner.txt").read_text()
        time.sleep(0.02)


def starts(cell):
    return Path(f"runs/grid/{cell}/log.txt").read_text().count("Seed set to")


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid")
    before, path = Path.cwd(), os.environ.get("PYTHONPATH")
    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(HERE)
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.path.insert(0, str(HERE))
    model = {**BASE["model"]["init_args"], "weights": "{stages.warm}", "delay": 0.1}
    write("warm.yaml", BASE)
    write(
        "base.yaml",
        {
            **BASE,
            "trainer": {**BASE["trainer"], "max_steps": STEPS},
            "model": {**BASE["model"], "init_args": model},
        },
    )
    write("grid.yaml", GRID)
    yield folder
    os.chdir(before)
    sys.path.remove(str(HERE))
    if path is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = path


@pytest.mark.timeout(600)
def test_killed_and_continued_by_two_runners(story, capsys):
    cell = CellFolder(path=Path("runs/grid/linear/seed4"))
    first = runner()
    wait(lambda: (cell.path / "last.ckpt").exists(), first)
    first.send_signal(signal.SIGKILL)
    first.wait()
    end = time.monotonic() + 30
    while cell.locked():  # the orphaned cell notices, saves and stops
        assert time.monotonic() < end
        time.sleep(0.02)
    assert cell.state(cell.spec["identity"]) is State.INTERRUPTED
    stopped = cell.progress["step"]
    assert 0 < stopped < STEPS

    second = runner()
    code = main(["grid", "run", "grid.yaml", "--slots", "1"])
    said = capsys.readouterr().out
    second.wait(timeout=300)
    other = Path("runner.txt").read_text()
    assert code == second.returncode == 1  # the broken arm, told by both
    assert f"linear/seed4: continues from step {stopped}" in said + other
    assert starts("stages/warm") == 1
    assert starts("linear/seed4") == 2
    assert starts("cubic/seed4") == starts("broken/seed4") == 1  # two runners, no cell twice

    result = cell.result
    assert result["steps"] == STEPS
    assert result["metrics"]["test/seed"] == 4
    assert result["parameters"] == {"trainable": 3, "frozen": 0}
    assert result["train_seconds"] > STEPS * 0.1  # over both processes
    assert not (cell.path / "last.ckpt").exists()
    failure = json.loads(Path("runs/grid/broken/seed4/failure.json").read_text())
    assert failure["error"] == "RuntimeError: the arm exploded"
    assert "lab.py" in failure["traceback"]
    assert "the arm exploded" in said  # the runner says so
    assert "| **linear** (baseline) | 1 |" in said  # and the table comes all the same
    assert "0 of 1 (1 failed)" in said
    assert "tensorboard --logdir runs/grid --host 127.0.0.1" in said


def test_status_is_light_and_tells_all(story):
    check = (
        "import sys; from pretzel.__main__ import main\n"
        "assert main(['grid', 'status', 'grid.yaml']) == 0\n"
        "heavy = {'torch', 'lightning', 'jsonargparse', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    shown = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True
    ).stdout
    for state in ("done", "failed"):
        assert state in shown
    assert f"{STEPS}/{STEPS}" in shown


def test_done_cells_are_skipped_and_stale_ones_refused(story, capsys):
    values = {
        **GRID,
        "axes": {"features": {k: GRID["axes"]["features"][k] for k in ("linear", "cubic")}},
    }
    write("grid.yaml", values)  # without the broken arm everything is done
    assert main(["grid", "run", "grid.yaml"]) == 0
    assert "linear/seed4: done before, skipped" in capsys.readouterr().out
    assert starts("linear/seed4") == 2
    base = yaml.safe_load(Path("base.yaml").read_text())
    base["trainer"]["max_steps"] = STEPS + 1
    write("base.yaml", base)
    assert main(["grid", "run", "grid.yaml"]) == 2
    said = capsys.readouterr().err
    assert "finished with another configuration: linear/seed4, cubic/seed4" in said
    assert "--rerun-stale" in said
    assert CellFolder(path=Path("runs/grid/linear/seed4")).result["steps"] == STEPS  # kept
