"""Running a grid: killed, continued by two runners at once, skipped when done, stale when changed.

One story in one grid, since every process pays the imports: the first runner does, and the others
are forked from a server that has.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from fork_server import fork_command
from killing import until
from lab_files import BASE, HERE, PYTHONPATH, write
from safetensors.torch import load_file

from pretzel.__main__ import main
from pretzel.ablation.engines.base import Engine
from pretzel.ablation.execution.commands import planned
from pretzel.ablation.execution.scheduler import Selection, execute
from pretzel.ablation.gridfile.reading import load
from pretzel.ablation.gridfile.run_names import EVENT_FILES, GRID_FILES
from pretzel.ablation.ledger import RunFolder, State

STEPS = 30
DELAY = 0.1  # seconds a step
COMMAND = ["grid", "run", "grid.yaml", "--slots", "1"]
METRICS = ["TestNorm", "Near"]  # callbacks that are added when all is trained
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
    with Path("runner.txt").open("w") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "pretzel", *COMMAND],
            stdout=out,
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
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("grid")
    patch.chdir(folder)
    patch.setenv("PYTHONPATH", PYTHONPATH)
    patch.setenv("OMP_NUM_THREADS", "1")
    patch.syspath_prepend(str(HERE))
    model = {**BASE["model"]["init_args"], "weights": "{stages.warm}", "delay": DELAY}
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
    patch.undo()


@pytest.mark.timeout(600)
def test_killed_and_continued_by_two_runners(story):
    cell = RunFolder(path=Path("runs/grid/linear/seed4"))
    first = runner()
    wait(lambda: (cell.path / "last.ckpt").exists(), first)
    first.send_signal(signal.SIGKILL)
    first.wait()
    end = time.monotonic() + 120
    while cell.locked():  # the orphaned cell notices, saves and stops
        assert time.monotonic() < end
        time.sleep(0.02)
    assert cell.state(cell.spec["identity"]) is State.INTERRUPTED
    stopped = cell.progress["step"]
    assert 0 < stopped < STEPS

    Path("hold").touch()
    runners = {name: fork_command(name, COMMAND) for name in ("second.txt", "third.txt")}
    for name, one in runners.items():  # each has looked at all cells and holds one
        until(lambda n=name, o=one: "/seed4: " in Path(n).read_text() or o.exitcode is not None)
    Path("hold").unlink()
    for one in runners.values():
        one.join(300)
    said = "".join(Path(name).read_text() for name in runners)
    assert [one.exitcode for one in runners.values()] == [1, 1], said  # both tell of broken
    assert f"linear/seed4: continues from step {stopped}" in said
    assert starts("stages/warm") == 1
    assert starts("linear/seed4") == 2
    assert starts("cubic/seed4") == starts("broken/seed4") == 1  # two runners, no cell twice

    result = cell.result
    assert result["steps"] == STEPS
    assert result["metrics"]["test/seed"] == 4
    assert result["parameters"] == {"trainable": 3, "frozen": 0}
    assert result["train_seconds"] > STEPS * DELAY  # over both processes
    assert not (cell.path / "last.ckpt").exists()
    failure = json.loads(Path("runs/grid/broken/seed4/failure.json").read_text())
    assert failure["error"] == "RuntimeError: the arm exploded"
    assert "lab.py" in failure["traceback"]
    assert "the arm exploded" in said  # the runner says so
    assert "broken/seed4: FAILED under another runner" in said
    assert "| **linear** (baseline) | 1 |" in said  # and the table comes all the same
    assert "0 of 1 (1 failed)" in said
    assert "TensorBoard: pretzel grid board grid.yaml" in said


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
    assert "finished with another configuration, code or data: linear/seed4, cubic/seed4" in said
    assert "pretzel grid rerun grid.yaml --stale" in said
    assert RunFolder(path=Path("runs/grid/linear/seed4")).result["steps"] == STEPS  # kept


class Unused(Engine):
    """Has room, and must not be asked to start anything."""

    def capacity(self):
        return 2

    def start(self, folders):
        pytest.fail(f"started {folders}")

    def close(self):
        pass


def test_what_another_plan_finishes_meanwhile_is_left_as_it_is(story, monkeypatch, capsys):
    """After the test before: the plan has changed, and we look as if it changed just now."""
    monkeypatch.setattr(
        "pretzel.ablation.execution.scheduler._refuse_stale", lambda plan, cells: None
    )
    assert execute(planned(load("grid.yaml")), Unused(), Selection()) == 1
    assert "cubic/seed4: not run: another runner has finished it" in capsys.readouterr().out
    assert RunFolder(path=Path("runs/grid/linear/seed4")).result["steps"] == STEPS


def test_why_and_adopt(story, capsys):
    """After the test before: linear and cubic are finished with one step less."""
    assert main(["grid", "why", "grid.yaml", "linear"]) == 0
    said = capsys.readouterr().out
    assert "linear/seed4: stale; differs in:" in said
    assert "trainer.max_steps: 30 -> 31" in said
    assert main(["grid", "adopt", "grid.yaml", "linear/*", "--because", "one step"]) == 0
    capsys.readouterr()
    adopted = json.loads(Path("runs/grid/linear/seed4/adopted.json").read_text())["adopted"]
    assert adopted[0]["because"] == "one step"
    assert "trainer.max_steps: 30 -> 31" in adopted[0]["differences"]
    assert main(["grid", "adopt", "grid.yaml", "linaer"]) == 2
    assert "no such run 'linaer'; did you mean 'linear'?" in capsys.readouterr().err


def test_rerun_and_gc(story, capsys):
    old = json.loads(Path("runs/grid/linear/seed4/result.json").read_text())
    assert main(["grid", "rerun", "grid.yaml", "--stale", "--slots", "1"]) == 0
    said = capsys.readouterr().out
    assert "cubic/seed4: starts" in said
    assert "linear/seed4" not in said.partition("stacked")[0].partition("| arm |")[0]  # adopted
    assert RunFolder(path=Path("runs/grid/cubic/seed4")).result["steps"] == STEPS + 1
    assert json.loads(Path("runs/grid/linear/seed4/result.json").read_text()) == old
    assert main(["grid", "gc", "grid.yaml"]) == 0
    assert "runs/grid/broken/seed4  (no run of the grid)" in capsys.readouterr().out
    assert Path("runs/grid/broken/seed4").is_dir()
    assert main(["grid", "gc", "grid.yaml", "--delete"]) == 0
    assert not Path("runs/grid/broken/seed4").exists()


def test_a_new_metric_is_measured_and_trains_nothing(story, capsys):
    base = yaml.safe_load(Path("base.yaml").read_text())
    base["trainer"]["callbacks"] = [{"class_path": f"lab.{name}"} for name in METRICS]
    write("base.yaml", base)
    grid = yaml.safe_load(Path("grid.yaml").read_text())
    write("grid.yaml", {**grid, "metrics": {**grid["metrics"], "test/near": "max"}})
    cells = [Path(f"runs/grid/{arm}/seed4") for arm in ("cubic", "linear")]  # linear was adopted
    fitted = [(cell / "fit.json").stat().st_mtime_ns for cell in cells]
    before = RunFolder(path=cells[1]).result
    assert main(["grid", "status", "grid.yaml"]) == 0  # of the plan that is written
    assert main(["grid", "evaluate", "grid.yaml", "--slots", "1"]) == 0
    said = capsys.readouterr().out
    assert "not measured" not in said
    assert "although it differs: linear/seed4 (adopted): trainer.max_steps: 30 -> 31" in said
    assert [(cell / "fit.json").stat().st_mtime_ns for cell in cells] == fitted
    for cell in cells:
        assert RunFolder(path=cell).result["metrics"]["test/norm"] > 0
        assert RunFolder(path=cell).result["samples"]["items"] == 32
    report = Path("runs/grid/compare.md").read_text()
    assert "| test/near ↑ | cubic | 32 |" in report  # the table of test items
    assert re.search(r"\| test/near ↑ \| cubic \| [+-].*\| one seed \| \d+ : \d+ \|", report)
    result = RunFolder(path=cells[1]).result
    assert (result["identity"], result["steps"]) == (before["identity"], STEPS)
    assert result["metrics"].items() >= before["metrics"].items()
    config = RunFolder(path=cells[1]).spec["config"]
    assert config["trainer"]["max_steps"] == STEPS  # as it was trained
    assert [one["class_path"] for one in config["trainer"]["callbacks"]] == [
        f"lab.{name}" for name in METRICS
    ]
    assert main(["grid", "why", "grid.yaml", "linear/*"]) == 0
    said = capsys.readouterr().out
    assert "linear/seed4: done; adopted although it differs in:" in said
    assert "trainer.max_steps: 30 -> 31" in said
    assert "TestNorm" not in said
    assert main(["grid", "run", "grid.yaml"]) == 0
    assert "linear/seed4: done before, skipped" in capsys.readouterr().out


def test_export_and_reproduce(story, capsys):
    assert main(["export", "runs/grid/cubic/seed4", "--out", "exported"]) == 0
    weights = load_file("exported/weights.safetensors")
    final = torch.load("runs/grid/cubic/seed4/final.ckpt", weights_only=True)["state_dict"]
    assert weights.keys() == final.keys()
    assert all(torch.equal(weights[name], final[name]) for name in final)
    assert main(["export", "runs/grid/cubic/seed4", "--out", "exported"]) == 2
    assert "--out must not exist yet, got exported" in capsys.readouterr().err
    assert main(["test", "-c", "exported/config.yaml"]) == 0  # names the weights beside it
    old = RunFolder(path=Path("runs/grid/cubic/seed4")).result["metrics"]["test/loss"]
    assert str(old)[:8] in capsys.readouterr().out
    kept = Path("runs/grid/cubic/seed4/samples.jsonl.gz").read_bytes()
    assert Path("exported/samples.jsonl.gz").read_bytes() == kept
    beside_logs = max(Path("lightning_logs").glob("*/samples.jsonl.gz"), key=os.path.getmtime)
    assert beside_logs.read_bytes() == kept
    assert main(["reproduce", "runs/grid", "cubic", "--slots", "1"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"cubic/seed4: all \d+ metrics are the same to the last bit", said)
    assert main(["reproduce", "runs/grid/compare.md", "cubik"]) == 2
    assert "no such row 'cubik'; did you mean 'cubic'?" in capsys.readouterr().err


def test_diff(story, capsys):
    assert main(["diff", "runs/grid/linear", "runs/grid/cubic"]) == 0
    said = capsys.readouterr().out
    assert "model.features: Linear -> Cubic" in said
    assert "test/cubic: none -> 1" in said
    assert main(["diff", "runs/grid/linear", "runs/nowhere"]) == 2
    assert "runs/nowhere: no run there" in capsys.readouterr().err
    # what no arm may be called is all that a grid writes beside the arms
    names = {path.name for path in Path("runs/grid").iterdir()} - {"linear", "cubic", "broken"}
    assert {name for name in names if not name.startswith(EVENT_FILES)} <= GRID_FILES
