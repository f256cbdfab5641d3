"""Arms that differ in evaluation alone wait for the training that they share."""

import json

from grids import planning

from pretzel.__main__ import main
from pretzel.ablation.engines.base import Engine, StartedRun
from pretzel.ablation.execution.scheduler import Selection, execute
from pretzel.ablation.result_file import write_result
from pretzel.files.atomic import write_json

NORM = {"trainer.callbacks": [{"class_path": "lab.TestNorm"}]}
planned, _ = planning({
    "base": "base.yaml",
    "axes": {"arm": {"plain": {}, "norm": NORM, "fast": {"model.lr": 0.1}}},
    "seeds": [3],
    "baseline": {"arm": "plain"},
    "metrics": {"test/loss": "min"},
})  # fmt: skip


class Ended(StartedRun):
    def __init__(self, code):
        self.code = code

    def poll(self):
        return self.code

    def interrupt(self):
        pass

    kill = interrupt


class AtOnce(Engine):
    """Does at once what a run's process leaves behind; those of some arms fail."""

    def __init__(self, failing=()):
        self.failing, self.trained = failing, []

    def capacity(self):
        return 3

    def start(self, folders):
        return [self.end(folder) for folder in folders]

    def end(self, folder):
        spec = json.loads((folder / "run.json").read_text())
        if not (folder / "fit.json").exists():
            self.trained.append(spec["name"])
            if folder.parent.name in self.failing:
                write_json(folder / "failure.json", {"error": "ValueError: bad"})
                return Ended(1)
            (folder / "final.ckpt").write_text(spec["name"])
            write_json(folder / "fit.json", {"metrics": {"val/x": 1.0, "train/x": 2.0}})
        write_result(folder, {key: spec[key] for key in ("identity", "evaluation")})
        return Ended(0)

    def close(self):
        pass


def test_the_weights_are_those_of_the_run_that_trains(project, capsys, monkeypatch):
    monkeypatch.setattr("pretzel.ablation.execution.scheduler._POLL_SECONDS", 0.0)
    plan, engine = planned(), AtOnce()
    assert execute(plan, engine, Selection()) == 0
    assert engine.trained == ["plain/seed3", "fast/seed3"]
    assert "norm/seed3: measures the weights of plain/seed3" in capsys.readouterr().out
    shared = project / "runs/grid/norm/seed3"
    assert (shared / "final.ckpt").read_text() == "plain/seed3"
    assert json.loads((shared / "fit.json").read_text())["metrics"] == {"train/x": 2.0}

    names = [run.name for run in plan.runs]
    engine = AtOnce(failing=["plain"])
    assert execute(plan, engine, Selection(rerun=names)) == 1
    assert engine.trained == ["plain/seed3", "fast/seed3", "norm/seed3"]  # there are no others
    engine = AtOnce()
    assert execute(plan, engine, Selection(only=["norm/seed3"], rerun=["norm/seed3"])) == 0
    assert engine.trained == ["norm/seed3"]  # it is asked to train again, and alone


def test_a_plan_says_whose_training_is_shared(project, capsys):
    planned().save()
    assert main(["grid", "plan", "grid.yaml"]) == 0
    assert "norm: shares the training of plain\n" in capsys.readouterr().out
    saved = json.loads((project / "runs/grid/plan.json").read_text())
    assert [run["trained_by"] for run in saved["runs"]] == [None, "plain/seed3", None]
