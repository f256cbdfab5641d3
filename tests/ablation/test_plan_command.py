"""What ``pretzel grid plan`` tells: cells, costs, changes, what is done, the time of the rest."""

import json
import re
from pathlib import Path

import pytest
from lab_files import BASE, write
from rich.console import Console

from pretzel.__main__ import main
from pretzel.ablation.gridfile.reading import load
from pretzel.ablation.ledger import RunFolder, State
from pretzel.ablation.planning.grid_to_plan import plan_grid
from pretzel.ablation.planning.print_plan import short_count, time_line
from pretzel.ablation.planning.progress import planning_progress
from pretzel.ablation.planning.time_estimate import estimate_time
from pretzel.files.atomic import write_json

GRID = {
    "base": "base.yaml",
    "axes": {"size": {"small": {}, "large": {"model.size": 4000, "data.size": 4000}}},
    "seeds": [3, 5],
    "baseline": {"size": "small"},
    "metrics": {"test/loss": "min"},
}


@pytest.fixture
def plan(project):
    return plan_grid(load(write("grid.yaml", GRID)))


def states_of(plan):
    return {run.name: plan.state(run) for run in plan.runs}


def finish(plan, name, seconds, **changed):
    cell = next(cell for cell in plan.runs if cell.name == name)
    marks = {"identity": cell.identity, "evaluation": cell.evaluation}
    result = {**marks, "metrics": {"test/loss": 1.5}, "seconds": seconds, **changed}
    write_json(plan.grid.output / name / "result.json", result)


def test_it_prints_cells_costs_changes_and_what_is_done(plan, capsys):
    finish(plan, "small/seed3", 30.0)
    assert main(["grid", "plan", "grid.yaml"]) == 0
    shown = capsys.readouterr().out
    for expected in (
        r"runs/grid: 4 runs",
        r"small/seed3 *│ done .* test/loss=1\.5",
        r"large/seed5 *│ pending",
        r"small *│ *1/2 │ *3 │ *0 │ *— ",
        r"large *│ *0/2 │ *4 k │",
        r"\nsmall: the baseline\nsmall: a step of a process counts about 32 rows\n",
        r"\nlarge: data\.size: 3 -> 4000; model\.size: 3 -> 4000\n",
        r"\nTime: about 30 s.*, for 1 of 3 runs \(1 by finished ones\); 2 runs: run with --probe",
    ):
        assert re.search(expected, shown), expected
    assert [path.name for path in Path("runs/grid").rglob("*.json")] == ["result.json"]


def test_as_json(plan, capsys):
    finish(plan, "small/seed3", 30.0)
    assert main(["grid", "plan", "grid.yaml", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert {cell["name"]: cell["state"] for cell in printed["runs"]} == {
        "small/seed3": "done", "large/seed3": "pending",
        "small/seed5": "pending", "large/seed5": "pending",
    }  # fmt: skip
    assert printed["arms"]["large"]["parameters"] == {"trainable": 4000, "frozen": 0}
    assert printed["arms"]["large"]["changes"][1] == "model.size: 3 -> 4000"
    assert printed["estimate"] == {
        "seconds": 30.0, "by_finished": 1, "by_probe": 0, "unknown": ["large/seed3", "large/seed5"],
    }  # fmt: skip


def test_time_is_that_of_finished_runs_that_differ_in_the_seed(plan):
    finish(plan, "small/seed3", 30.0)
    finish(plan, "large/seed3", 50.0)
    stands = states_of(plan)
    assert estimate_time(plan, stands).seconds == 80.0
    stands["large/seed5"] = State.INTERRUPTED
    progress = plan.grid.output / "large/seed5" / "progress.json"
    write_json(progress, {"step": 3, "seconds": 20.0})
    assert estimate_time(plan, stands).seconds == 60.0  # 20 of its 50 seconds are spent
    time = estimate_time(plan, dict.fromkeys(stands, State.DONE))
    assert time_line(time, 2) == "Time: all is done."


def test_a_probe_fills_what_is_unknown(plan):
    stands = states_of(plan)
    time = estimate_time(plan, stands)
    assert (time.seconds, len(time.unknown)) == (0.0, 4)
    assert time_line(time, 2) == "Time: 4 runs: run with --probe for an estimate."
    (family,) = {cell.family for cell in plan.compared if cell.arm == "small"}
    time = estimate_time(plan, stands, {family: 7.0})
    assert (time.seconds, time.probed, len(time.unknown)) == (14.0, 2, 2)
    assert time_line(time, 2) == (
        "Time: about 14 s, 7 s with 2 at a time, for 2 of 4 runs (2 by a probe, without "
        "evaluation); 2 runs: run with --probe for an estimate."
    )


@pytest.mark.timeout(300)
def test_probing_trains_a_few_steps_and_leaves_nothing_behind(project, capsys):
    delay = 0.05
    model = {**BASE["model"], "init_args": {**BASE["model"]["init_args"], "delay": delay}}
    write("base.yaml", {**BASE, "model": model, "trainer": {**BASE["trainer"], "max_steps": 2000}})
    axes = {"features": {"linear": {}, "broken": {"model.features": "lab.Broken"}}}
    write("grid.yaml", {**GRID, "axes": axes, "baseline": {"features": "linear"}})
    assert main(["grid", "plan", "grid.yaml", "--probe", "--json"]) == 0
    printed, said = capsys.readouterr()
    found = json.loads(printed)["estimate"]
    assert (found["by_probe"], found["unknown"]) == (2, ["broken/seed3", "broken/seed5"])
    assert 1.0 < found["seconds"] / (2 * 2000 * delay) < 2.0
    assert "probing linear/seed" in said
    assert re.search(r"broken/seed\d: its first steps failed: RuntimeError: the arm exploded", said)
    assert sorted(path.name for path in project.iterdir()) == ["base.yaml", "grid.yaml"]


def test_planning_tells_how_far_it_is(capsys, monkeypatch):
    monkeypatch.setattr("pretzel.ablation.planning.progress._LINE_SECONDS", 0.0)
    with planning_progress(Console(stderr=True, force_terminal=False)) as progress:
        progress(3, 1000)
    assert capsys.readouterr().err == "parsed 3 of 1000 arms\n"
    with planning_progress(Console(stderr=True, force_terminal=True, width=80)) as progress:
        progress(3, 1000)
    assert "3/1000" in capsys.readouterr().err


def test_counts_are_short():
    shown = [short_count(value) for value in (None, 0, 999, 1234, 1_298_000, 3_560_000_000)]
    assert shown == ["—", "0", "999", "1.23 k", "1.3 M", "3.56 G"]


def test_a_locked_cell_is_running(plan):
    folder = RunFolder(path=plan.grid.output / "small/seed3")
    with folder.lease():
        assert states_of(plan)["small/seed3"] is State.RUNNING
