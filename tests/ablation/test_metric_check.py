"""Metrics of a grid, checked when it is planned by what modules and callbacks say they log."""

import re

import pytest
from grids import planning
from lab_files import BASE, write

NORM = {"trainer.callbacks": [{"class_path": "lab.TestNorm"}]}
RATE = [{"class_path": "lightning.pytorch.callbacks.LearningRateMonitor"}]
GRID = {
    "base": "base.yaml",
    "axes": {"arm": {"plain": {}, "fast": {"model.lr": 0.1}}},
    "seeds": [3],
    "baseline": {"arm": "plain"},
    "metrics": {"test/loss": "min"},
}
planned, refused = planning(GRID)


@pytest.fixture
def base(project):
    def named(name):
        arguments = BASE["model"]["init_args"]
        if name == "lab.Renamed":
            arguments = {"features": arguments["features"]}
        model = {"class_path": name, "init_args": arguments}
        trainer = {**BASE["trainer"], "callbacks": RATE}
        write("base.yaml", {**BASE, "trainer": trainer, "model": model})

    named("lab.Telling")
    return named


def test_a_name_that_no_part_logs_is_refused_with_the_one_that_was_meant(base):
    told = refused(metrics={"test/loss": "min", "test/los": "min"})
    line = r"grid\.yaml:\d+: metrics: no part logs 'test/los'; did you mean 'test/loss'\?"
    assert re.fullmatch(line, told)
    names = {"test/seed": "max", "val/any_loss": "min", "lr-SGD": "max"}
    assert planned(metrics=names).warnings == ()


def test_the_metric_of_tuning_is_checked_too(base):
    arms = {"plain": {}, "fast": {"tune": {"model.lr": [0.1, 1.0]}}}
    tuned = {"axes": {"arm": arms}, "tuning": {"metric": "val/lss", "direction": "min"}}
    assert "tuning.metric: no part logs 'val/lss'" in refused(**tuned)


def test_a_class_says_it_for_itself(base):
    axes = {"arm": {"plain": {}, "other": {"model.features": {"class_path": "lab.Cubic"}}}}
    base("lab.Renamed")
    assert "no part logs 'test/other'" in refused(axes=axes, metrics={"test/other": "min"})
    base("lab.Silent")
    plan = planned(metrics={"test/loss": "min", "test/other": "min"})
    assert plan.warnings == (
        "Metrics that are not checked: test/loss, test/other: lab.Silent does not say what it logs",
    )


def test_what_one_arm_may_log_is_not_refused(base):
    axes = {"arm": {"plain": {}, "norm": NORM}}
    (warning,) = planned(axes=axes, metrics={"test/los": "min"}).warnings
    assert warning == (
        "Metrics that are not checked: test/los (did you mean 'test/loss'?): lab.TestNorm does not "
        "say what it logs"
    )
