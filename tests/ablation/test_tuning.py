"""A sweep inside an arm before the comparison: planned, part of the identity, and chosen from."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from grids import planning
from lab_files import BASE, write

from pretzel.__main__ import main
from pretzel.ablation.planning.tuning import best_candidate
from pretzel.errors import UserError

CUBIC = {"class_path": "lab.Cubic"}
RATES = {"tune": {"model.lr": [0.01, 0.1, 1]}}
TUNING = {"metric": "val/loss", "direction": "min"}
GRID = {
    "base": "base.yaml",
    "axes": {
        "features": {"linear": {}, "cubic": {"model.features": CUBIC, **RATES}},
        "size": {"three": {}, "four": {"model.size": 4, "data.size": 4}},
    },
    "seeds": [3, 5],
    "baseline": {"features": "linear", "size": "three"},
    "metrics": {"test/loss": "min"},
    "tuning": TUNING,
}
planned, refused = planning(GRID)


def lr(config):
    return config["model"]["init_args"]["lr"]


def test_an_arm_is_tried_with_a_seed_that_is_not_compared(project):
    plan = planned()
    assert {cell.name: len(cell.candidates) for cell in plan.compared if cell.seed == 3} == {
        "linear+three/seed3": 0, "linear+four/seed3": 0,
        "cubic+three/seed3": 3, "cubic+four/seed3": 3,
    }  # fmt: skip
    cell = next(cell for cell in plan.compared if cell.name == "cubic+four/seed5")
    names = [candidate.run for candidate in cell.candidates]
    assert [re.sub(r"-\w{8}$", "", name) for name in names] == [
        f"tuning/cubic+four-lr={rate}" for rate in ("0.01", "0.1", "1")
    ]
    assert set(names) <= set(cell.needs)
    tried = [next(run for run in plan.runs if run.name == name) for name in names]
    for run, candidate, rate in zip(tried, cell.candidates, (0.01, 0.1, 1.0), strict=True):
        assert (run.seed, run.export, run.tests) == (None, False, False)
        assert lr(run.config) == lr(candidate.config) == rate
        assert run.config["seed_everything"] == run.config["data"]["init_args"]["seed"] == 6
        assert run.config["trainer"]["default_root_dir"] == f"runs/grid/{run.name}"
        assert candidate.config["seed_everything"] == 5
        assert candidate.config["trainer"]["default_root_dir"] == f"runs/grid/{cell.name}"
    other = next(cell for cell in plan.compared if cell.name == "cubic+four/seed3")
    assert [candidate.run for candidate in other.candidates] == names  # once for all seeds
    assert len(plan.runs) == 8 + 2 * 3
    assert plan.runs.index(tried[-1]) < plan.runs.index(cell)


def test_it_does_not_choose_on_files_of_the_test(project):
    write("filed.yaml", {**BASE, "data": {"class_path": "lab.Filed"}})
    assert re.search(
        r"grid\.yaml:\d+: model\.lr: tune would choose on test data: data reads pipe:x for val "
        r"and for test; give val files of its own \(arms? cubic",
        refused(base="filed.yaml"),
    )


def test_it_is_told(project):
    plan = planned()
    plan.save()
    told = json.loads(Path("runs/grid/plan.json").read_text())
    assert told["tuning"] == {**TUNING, "seed": 6}
    assert told["arms"]["cubic+three"]["tuned"] == {"model.lr": [0.01, 0.1, 1]}
    assert told["arms"]["linear+three"]["tuned"] == {}
    cell = next(cell for cell in told["runs"] if cell["name"] == "cubic+three/seed3")
    assert list(cell["candidates"].values()) == ["model.lr=0.01", "model.lr=0.1", "model.lr=1"]
    assert plan.arms["cubic+three"].changes == [
        "model.features: Linear -> Cubic",
        "model.lr: tuned over 3 values [0.01, 0.1, 1]",
    ]


def test_plan_and_status_count_the_candidate_runs(project, capsys):
    planned().save()
    assert main(["grid", "plan", "grid.yaml"]) == 0
    shown = capsys.readouterr().out
    assert "runs/grid: 14 runs, 6 of them candidate runs" in shown
    assert "cubic+four: 3 candidate runs, chosen by val/loss ↓" in shown
    assert "linear+four: 3" not in shown
    assert main(["grid", "status", "grid.yaml"]) == 0
    assert "runs/grid: 14 runs, 6 of them candidate runs" in capsys.readouterr().out


def test_arms_that_are_tuned_alike_do_not_differ_in_it(project):
    axes = {"features": {"linear": RATES, "cubic": {"model.features": CUBIC, **RATES}}}
    plan = planned(axes=axes, baseline={"features": "linear"})
    assert plan.arms["cubic"].changes == ["model.features: Linear -> Cubic"]
    alone = {"features": {"linear": RATES, "cubic": {"model.features": CUBIC}}}
    plan = planned(axes=alone, baseline={"features": "linear"})
    assert plan.arms["cubic"].changes[1:] == ["model.lr: not tuned"]


def test_several_keys_are_a_product(project):
    tune = {"model.lr": [0.1, 1], "model.features": [CUBIC, {**CUBIC, "init_args": {"power": 2}}]}
    plan = planned(
        axes={"features": {"linear": {}, "tuned": {"tune": tune}}}, baseline={"features": "linear"}
    )
    cell = plan.compared[1]
    assert [candidate.label for candidate in cell.candidates] == [
        "model.lr=0.1, model.features=Cubic", "model.lr=0.1, model.features=Cubic(power=2)",
        "model.lr=1, model.features=Cubic", "model.lr=1, model.features=Cubic(power=2)",
    ]  # fmt: skip
    assert len({candidate.run for candidate in cell.candidates}) == 4


def test_the_identity_is_that_of_all_candidates_and_of_the_rule(project):
    def identities(**changed):
        cells = planned(**changed).compared
        return {cell.name: cell.identity for cell in cells}

    def tuned(*rates):
        tune = {"tune": {"model.lr": list(rates)}}
        return {
            **GRID["axes"],
            "features": {"linear": {}, "cubic": {"model.features": CUBIC, **tune}},
        }

    before = identities()
    for changed in (
        {"axes": tuned(0.01, 0.1)},
        {"axes": tuned(0.01, 0.1, 2)},
        {"tuning": {**TUNING, "direction": "max"}},
        {"tuning": {**TUNING, "metric": "val/other"}},
        {"tuning": {**TUNING, "seed": 9}},
    ):
        after = identities(**changed)
        differ = {name for name in before if before[name] != after[name]}
        assert differ == {name for name in before if name.startswith("cubic")}, changed
    assert len(set(before.values())) == 8


def chained(**tune):
    write("first.yaml", {"trainer": {"max_steps": 2}})
    write("last.yaml", {"trainer": {"max_steps": 4}})
    return planned(
        chain={"first": "first.yaml", "last": "last.yaml"},
        axes={"arm": {"linear": {}, "tuned": {"tune": tune}}},
        baseline={"arm": "linear"},
    )


def test_in_a_chain_the_last_link_is_tuned_after_the_others(project):
    plan = chained(**{"model.lr": [0.1, 1]})
    runs = {run.name: run for run in plan.runs}
    cell = runs["tuned/seed3"]
    first = next(name for name in cell.needs if name.startswith("stages/first-seed3"))
    assert runs["linear/seed3"].needs == (first,)  # which they share
    for candidate in cell.candidates:
        (need,) = runs[candidate.run].needs
        assert need.startswith("stages/first-seed6")
        assert (
            runs[candidate.run]
            .config["model"]["init_args"]["weights"]
            .startswith(f"runs/grid/{need}/")
        )
        assert first in candidate.config["model"]["init_args"]["weights"]
        assert candidate.config["trainer"]["max_steps"] == 4


def test_a_named_link_is_tuned_and_passed_on(project):
    plan = chained(**{"first.model.lr": [0.1, 1]})
    runs = {run.name: run for run in plan.runs}
    cell = runs["tuned/seed3"]
    assert not cell.candidates
    (need,) = cell.needs
    assert need.startswith("stages/first-seed3")
    stage = runs[need]
    assert [lr(candidate.config) for candidate in stage.candidates] == [0.1, 1.0]
    assert stage.export
    for candidate in stage.candidates:
        assert runs[candidate.run].config["trainer"]["max_steps"] == 2
    assert plan.as_json()["arms"]["tuned"]["tuned"] == {"first.model.lr": [0.1, 1]}
    assert plan.arms["tuned"].changes == ["first: model.lr: tuned over 2 values [0.1, 1]"]


@pytest.fixture
def cell(project):
    return planned().compared[2]


def results(cell, *scores):
    return {
        candidate.run: None if score is None else {"metrics": {"val/loss": score}}
        for candidate, score in zip(cell.candidates, scores, strict=True)
    }


def test_the_best_on_validation_is_chosen(cell):
    best, note = best_candidate(cell, results(cell, 3.0, 1.0, 2.0))
    assert best is cell.candidates[1]
    assert note == "model.lr=0.1, the best of 3 by val/loss (1)"
    other = replace(cell, tuning=cell.tuning.model_copy(update={"direction": "max"}))
    assert best_candidate(other, results(cell, 3.0, 1.0, 2.0))[0].label == "model.lr=0.01"
    first, _ = best_candidate(cell, results(cell, 1.0, 2.0, 1.0))
    assert first.label == "model.lr=0.01"  # the first of equals


def test_what_fails_or_diverges_loses(cell):
    _, note = best_candidate(cell, results(cell, None, 5.0, math.nan))
    assert note == "model.lr=0.1, the best of 3 by val/loss (5); 2 of them failed"
    with pytest.raises(UserError, match="all 3 candidates of its tuning failed"):
        best_candidate(cell, results(cell, None, None, math.nan))


def test_a_metric_that_is_not_logged_is_a_mistake(cell):
    logged = {candidate.run: {"metrics": {"val/los": 1.0}} for candidate in cell.candidates}
    with pytest.raises(UserError, match=r"has logged no val/loss; did you mean 'val/los'\?"):
        best_candidate(cell, logged)


def axes(**arms):
    return {"axes": {"features": {"linear": {}, **arms}}, "baseline": {"features": "linear"}}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"tuning": None}, r"grid\.yaml:\d+: axes\.features\.cubic\.tune: the grid must say how"),
        (axes(fast={"model.lr": 1}), r"grid\.yaml:\d+: tuning: no arm has `tune: "),
        ({"tuning": {**TUNING, "seed": 5}}, r"tuning\.seed: must be none of the compared, "),
        ({"tuning": {**TUNING, "metric": "test/loss"}},
         r"tuning\.metric: must be a metric of validation, not of the test, got 'test/loss'"),
        (axes(a={"tune": {"model.lr": [1]}}),
         r"tune\.model\.lr: must be a list of at least two different values, got \[1\]"),
        (axes(a={"tune": {"model.lr": [1, 1]}}), r"must be a list of at least two different"),
        (axes(a={"tune": {"model.lr": 1}}), r"must be a list of at least two different"),
        (axes(a={"tune": [1]}), r"tune: must be a mapping of dotted keys to lists of values"),
        (axes(a={"model.lr": 1, "tune": {"model.lr": [1, 2]}}), r"the arm sets it too; "),
        (axes(a={"tune": {"model.lrr": [1, 2]}}),
         r"grid\.yaml:\d+: model\.init_args\.lrr: .*did you mean 'lr'\? \(arm a\)"),
        (axes(a={"tune": {"model.features": [CUBIC, {**CUBIC, "init_args": {"power": 0}}]}}),
         r"power must be at least 1, got 0 \(arm a\)"),
        ({"match": {"by": "parameters", "via": "model.size", "tolerance": 1},
          **axes(a={"tune": {"model.size": [3, 5]}})},
         r"model\.size: is solved for \(grid\.yaml: match\), so it cannot be tuned \(arm a\)"),
        ({"axes": {"features": {"linear": {}, "cubic": RATES},
                   "size": {"three": {}, "four": {"model.lr": 4}}}},
         r"axis features sets model\.lr too; two axes may not set one key"),
    ],
)  # fmt: skip
def test_mistakes(project, changed, expected):
    assert re.search(expected, refused(**changed))
