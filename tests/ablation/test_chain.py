"""Cells that are chains of runs: what they share runs once, what an arm lacks is n/a."""

import json
import re
from pathlib import Path

import pytest
from grids import planning
from lab_files import BASE, write

from pretzel.__main__ import main

CUBIC = {"class_path": "lab.Cubic"}
ARMS = {
    "linear": {},
    "fast": {"last.model.lr": 0.1},
    "cubic": {"model.features": CUBIC},
    "late": {"last.model.features": CUBIC},
    "alone": {"first": None},
    "textless": {"middle.model.features": {"class_path": "lab.Nothing"}},
    "nothing": {"model.features": {"class_path": "lab.Nothing"}},
}
GRID = {
    "base": "base.yaml",
    "chain": {"first": "first.yaml", "middle": "middle.yaml", "last": "last.yaml"},
    "axes": {"arm": ARMS},
    "seeds": [3, 5],
    "baseline": {"arm": "linear"},
    "metrics": {"test/loss": "min"},
}
planned, refused = planning(GRID)


@pytest.fixture
def files(project):
    write("first.yaml", {"trainer": {"max_steps": 2}})
    # a path of its own, as a stage that is run by hand names it, gives way to the chain's
    write("middle.yaml", {"model": {"weights": "runs/by_hand.safetensors"}})
    write("last.yaml", {"trainer": {"max_steps": 4}})
    return project


def start(cell):
    return cell.config["model"]["init_args"]["weights"]


def test_what_chains_share_is_one_run(files):
    plan = planned()
    by_name = {run.name: run for run in plan.runs}
    chain = {}
    for arm in ("linear", "fast", "cubic", "late", "alone", "textless"):
        run, names = by_name[f"{arm}/seed3"], []
        while run.needs:
            (before,) = run.needs
            assert start(run) == f"runs/grid/{before}/weights.safetensors"
            run = by_name[before]
            assert run.export
            assert run.config["seed_everything"] == 3
            names.insert(0, run.name)
        assert start(run) is None
        chain[arm] = names
    assert [name.split("-")[0] for name in chain["linear"]] == ["stages/first", "stages/middle"]
    assert chain["linear"] == chain["fast"] == chain["late"]
    assert not set(chain["cubic"]) & set(chain["linear"])
    assert chain["textless"] == chain["linear"][:1]  # its last follows the first
    assert [name.split("-")[0] for name in chain["alone"]] == ["stages/middle"]
    assert chain["alone"][0] != chain["linear"][1]  # the same configuration from another start
    # per seed: first and middle of linear, the same of cubic, middle of alone; six last ones
    assert len(plan.runs) == 2 * (5 + 6)
    names = [run.name for run in plan.runs]
    assert all(names.index(need) < names.index(run.name) for run in plan.runs for need in run.needs)
    assert names[:3] == [*chain["linear"], "linear/seed3"]  # no waiting for all first ones


def test_an_earlier_link_is_part_of_the_identity(files):
    before = {run.name: run.identity for run in planned().runs}
    write("middle.yaml", {"model": {"lr": 0.02}})
    after = {run.name: run.identity for run in planned().runs}
    kept = {name for name in before if after.get(name) == before[name]}
    assert {name.split("-")[0] for name in kept} == {"stages/first", "textless/seed3",
                                                    "textless/seed5"}  # fmt: skip


def test_what_an_arm_lacks_is_told(files, capsys):
    plan = planned()
    assert plan.arms["late"].changes == ["last: model.features: Linear -> Cubic"]
    assert plan.arms["cubic"].changes == ["model.features: Linear -> Cubic"]
    assert plan.arms["alone"].changes == ["no first"]
    assert "does not exist for it" in plan.arms["textless"].absent["middle"]
    assert list(plan.arms["nothing"].absent) == ["first", "middle", "last"]
    assert not any(run.arm == "nothing" for run in plan.runs)
    assert main(["grid", "plan", "grid.yaml"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"textless: middle: n/a: .*nothing has no features", shown)
    plan.save()
    assert main(["compare", "runs/grid"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| nothing")]
    assert {cell.strip() for cell in rows[0].split("|")[2:-1]} == {"n/a"}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"chain": {"model": "first.yaml"}}, r"chain\.model: must be .*, and none of model"),
        ({"chain": {"first": "frist.yaml"}}, r"chain\.first: frist\.yaml: no such file"),
        ({"axes": {"arm": {**ARMS, "odd": {"first": 3}}}},
         r"must be null, which leaves first out, or a key in it, got 3"),
        ({"axes": {"arm": {**ARMS, "odd": {"last.model.lrr": 3}}}},
         r"no parameter 'lrr' \(value 3\); did you mean 'lr'\? \(arm odd\)"),
        ({"axes": {"arm": {**ARMS, "same": {"first.model.lr": 0.01}}}},
         r"same changes nothing against the baseline"),
        ({"baseline": {"arm": "nothing"}}, r"the baseline is not applicable: .*no features"),
        ({"axes": {"arm": ARMS, "rate": {"slow": {}, "fast": {"model.lr": 1}}},
          "baseline": {"arm": "linear", "rate": "slow"}},
         r"axis arm sets model\.lr too"),
    ],
)  # fmt: skip
def test_mistakes(files, changed, expected):
    assert re.search(expected, refused(**changed))


def test_a_link_must_take_weights_and_give_them(files):
    boring = {"model": "lightning.pytorch.demos.boring_classes.BoringModel"}
    write("middle.yaml", boring)
    assert "BoringModel cannot follow another link of the chain" in refused()
    write("first.yaml", boring)
    write("middle.yaml", {"model": {"class_path": "lab.LeastSquares",
                                    "init_args": BASE["model"]["init_args"]}})  # fmt: skip
    assert "BoringModel cannot be a stage" in refused()


@pytest.mark.timeout(600)
def test_run(files, capsys):
    arms = {
        "linear": {},
        "fast": {"last.model.lr": 0.1},
        "broken": {"first.model.features": {"class_path": "lab.Broken"}},
    }
    write("middle.yaml", {"trainer": {"max_steps": 0}})
    values = {**GRID, "axes": {"arm": arms}, "seeds": [3]}
    values["chain"] = {name: values["chain"][name] for name in ("first", "last")}
    write("grid.yaml", values)
    assert main(["grid", "run", "grid.yaml", "--slots", "2"]) == 1
    said = capsys.readouterr().out
    assert re.search(r"broken/seed3: not run, stages/first-seed3-\w{8} failed", said)
    assert len(list(Path("runs/grid/stages").iterdir())) == 2
    losses = {
        arm: json.loads(Path(f"runs/grid/{arm}/seed3/result.json").read_text())["metrics"]
        for arm in ("linear", "fast")
    }
    assert losses["linear"]["test/loss"] != losses["fast"]["test/loss"]
    assert "Train time counts the stages" in said
    assert main(["grid", "status", "grid.yaml"]) == 0
    assert "stages/first-seed3" in capsys.readouterr().out
