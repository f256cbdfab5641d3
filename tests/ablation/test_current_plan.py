"""What a grid looks like when its files have changed since it ran: told without being asked."""

import pytest
from lab_files import BASE, write

from pretzel.__main__ import main
from pretzel.ablation.engines.base import Engine
from pretzel.ablation.execution.scheduler import Selection, execute
from pretzel.ablation.gridfile.reading import load
from pretzel.ablation.planning import grid_to_plan
from pretzel.ablation.planning.grid_to_plan import plan_grid
from pretzel.ablation.result_file import write_result

FEATURES = "import lab\n\n\nclass Own(lab.Linear):\n    pass\n"
METRIC = (
    "from lightning.pytorch import Callback\n\n\nclass Metric(Callback):\n"
    "    evaluation_only = True\n"
)
ARMS = {
    "shared": {},
    "own": {"model.features": {"class_path": "changed_features.Own"}},
    "slow": {"model.delay": 0.001},
}
GRID = {
    "base": "base.yaml",
    "axes": {"arm": ARMS},
    "seeds": [3],
    "baseline": {"arm": "shared"},
    "metrics": {"test/loss": "min"},
}


@pytest.fixture
def finished(project, monkeypatch):
    """A grid whose runs are done, with parts in files of its own; two of its arms are twins."""
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.setenv("COLUMNS", "250")
    (project / "changed_features.py").write_text(FEATURES)
    (project / "changed_metric.py").write_text(METRIC)
    callbacks = [{"class_path": "changed_metric.Metric"}]
    write("base.yaml", {**BASE, "trainer": {**BASE["trainer"], "callbacks": callbacks}})
    plan = plan_grid(load(write("grid.yaml", GRID)))
    plan.save()
    for run in plan.runs:
        weights = {"step": 4, "first": run.arm if run.arm == "own" else "equal"}
        marks = {"identity": run.identity, "evaluation": run.evaluation}
        write_result(plan.folder(run).path, {**marks, "metrics": {}, "weights": weights})
    return plan


def states(capsys):
    assert main(["grid", "status", "grid.yaml"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.split("│")] for line in lines if "/seed3 " in line]
    return {row[1].removesuffix("/seed3"): row[2] for row in rows if len(row) > 2}


def test_code_that_has_changed_is_seen(finished, project, capsys):
    done = dict.fromkeys(ARMS, "done")
    assert states(capsys) == done
    (project / "changed_features.py").write_text(f"# a comment\n{FEATURES}")
    assert states(capsys) == done
    (project / "changed_features.py").write_text(f"{FEATURES}    factor = 2\n")
    assert states(capsys) == done | {"own": "stale"}
    (project / "changed_metric.py").write_text(f"{METRIC}    factor = 2\n")
    assert states(capsys) == dict.fromkeys(ARMS, "trained") | {"own": "stale"}
    (project / "changed_features.py").write_text("class Own(:\n")
    (project / "changed_metric.py").write_text(METRIC)
    assert states(capsys) == done | {"own": "stale"}
    (project / "changed_features.py").unlink()
    assert states(capsys) == done | {"own": "stale"}
    (project / "changed_features.py").write_text(FEATURES)
    assert states(capsys) == done


def test_a_configuration_that_has_changed_is_planned_again_once(
    finished, project, capsys, monkeypatch
):
    (project / "base.yaml").write_text(f"# a comment\n{(project / 'base.yaml').read_text()}")
    assert states(capsys) == dict.fromkeys(ARMS, "done")
    axes = {"arm": {**ARMS, "slow": {"model.delay": 0.002}, "new": {"model.lr": 0.1}}}
    write("grid.yaml", {**GRID, "axes": axes})
    now = {"shared": "done", "own": "done", "slow": "stale", "new": "pending"}
    assert states(capsys) == now

    def planned(*args):
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr(grid_to_plan, "plan_grid", planned)
        assert states(capsys) == now
    write("grid.yaml", {**GRID, "axes": {"arm": {**ARMS, "new": {"model.lrr": 0.1}}}})
    assert main(["grid", "status", "grid.yaml"]) == 0
    told = capsys.readouterr().out
    assert "3 done" in told
    assert "it cannot be planned now: grid.yaml:" in told
    assert "did you mean 'lr'?" in told


class Idle(Engine):
    """Has nothing to start."""

    def capacity(self):
        return 1

    def start(self, folders):
        raise AssertionError

    def close(self):
        pass


def test_twins_are_told_by_the_runner_and_by_status(finished, capsys):
    sentence = (
        "shared and slow (seed3) have the same weights bit for bit after 4 steps of training: what "
        "they differ in has changed nothing so far (slow claims model.delay: 0.0 -> 0.001)"
    )
    assert execute(finished, Idle(), Selection()) == 0
    assert capsys.readouterr().out.count(sentence) == 1
    assert main(["grid", "status", "grid.yaml"]) == 0
    assert sentence in capsys.readouterr().out
