"""What is wrong in any cell is told at once, with cell, file, line, key and a suggestion."""

import re
from pathlib import Path

import pytest
import yaml
from lab_files import BASE, write

from pretzel.__main__ import main
from pretzel.ablation.gridfile.reading import load
from pretzel.ablation.planning.grid_to_plan import plan_grid
from pretzel.errors import UserError

ADAMW = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.3, "betas": [0.8, 0.9]}}
SGD = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}
CUBIC = {"class_path": "lab.Cubic"}
NETWORK = {
    "data": BASE["data"],
    "model": {
        "class_path": "lab_sizes.Network",
        "init_args": {
            "layers": {"class_path": "lab_sizes.Square", "init_args": {"width": 4}},
            "make_optimizer": ADAMW,
        },
    },
}


def grid(arms, base="base.yaml", **changed):
    values = {
        "base": base,
        "axes": {"arm": {"base": {}, **arms}},
        "seeds": [3, 5],
        "baseline": {"arm": "base"},
        "metrics": {"test/loss": "min"},
        **changed,
    }
    return write("grid.yaml", values)


def refused(arms, **changed):
    with pytest.raises(UserError) as caught:
        plan_grid(load(grid(arms, **changed)))
    return str(caught.value)


def test_every_kind_of_mistake_is_in_one_report_and_nothing_is_started(project, capsys):
    arms = {
        "key": {"model.lrr": 1},
        "trainer": {"trainer.max_stepz": 1},
        "group": {"modle.lr": 1},
        "type": {"model.lr": "fast"},
        "deep": {"model.features.scale": [1]},
        "class": {"model.features": "lab.Cubci"},
        "short": {"model.features": {"class_path": "Cubci"}},
        "kind": {"model.features": {"class_path": "lab.Line"}},
        "number": {"model.features": 3},
        "refused": {"model.features": {**CUBIC, "init_args": {"power": 0}}},
        "leftover": {"model.features": {**CUBIC, "init_args": {"offset": 1}}},
        "cubic": {"model.features": CUBIC},
        "again": {"model.features.class_path": "lab.Cubic"},
        "nothing": {"model.lr": 0.01},
        "accumulated": {"trainer.accumulate_grad_batches": 2},
    }
    expected = [
        r"model\.init_args\.lrr: lab\.LeastSquares has no parameter 'lrr' \(value 1\); did you "
        r"mean 'lr'\? \(arm key\)",
        r"trainer\.max_stepz: unknown key \(value 1\); did you mean 'trainer\.max_steps'\? "
        r"\(arm trainer\)",
        r"modle\.lr: unknown key \(value 1\); did you mean 'model'\? \(arm group\)",
        r"model\.init_args\.lr: expected float, got 'fast' \(arm type\)",
        r"model\.init_args\.features\.init_args\.scale: expected float, got \[1\] \(arm deep\)",
        r"model\.init_args\.features: no such class 'lab\.Cubci'; did you mean 'lab\.Cubic'\? "
        r"\(arm class\)",
        r"features\.class_path: no such class 'Cubci'; did you mean 'lab\.Cubic'\? \(arm short\)",
        r"features\.class_path: 'lab\.Line' is no .*Features.* \(arm kind\)",
        r"features: must be the class_path of a Features, got 3 \(arm number\)",
        r"features\.init_args\.power: Cubic: power must be at least 1, got 0 \(arm refused\)",
        r"offset: lab\.Cubic has no parameter 'offset' \(value 1\).* \(arm leftover\)",
        r"trainer\.accumulate_grad_batches must be 1 for LeastSquares, got 2: .*; "
        r"set data\.init_args\.rows \(arm accumulated\)",
    ]
    grid(arms)
    for command in ("plan", "run"):
        assert main(["grid", command, "grid.yaml"]) == 2
        said = capsys.readouterr().err
        assert "14 mistakes in grid.yaml, nothing was started:" in said
        lines = Path("grid.yaml").read_text().splitlines()
        for message in expected:
            found = re.search(
                rf"  - grid\.yaml:(\d+): {'.*' if message[0] in 'fo' else ''}{message}", said
            )
            assert found, message
            cell = re.search(r"\(arm (\w+)", message.replace("\\", ""))
            # the line is the arm's, not that of what stands around it
            above = [line for line in lines[: int(found[1])] if re.match(r" {4}\w", line)]
            assert above[-1].strip(" :") == cell[1]
        assert "grid.yaml: again is the same as cubic" in said
        assert "grid.yaml: nothing changes nothing against the baseline base" in said
    assert sorted(path.name for path in project.iterdir()) == ["base.yaml", "grid.yaml"]


def test_data_that_do_not_suit_the_model_are_refused(project, monkeypatch):
    def check_data(self, data):
        if data.rows > 90:
            raise UserError(f"rows must be at most 90, got {data.rows}")

    monkeypatch.setattr("lab.LeastSquares.check_data", check_data, raising=False)
    said = refused({"long": {"data.rows": 100}})
    assert re.search(r"rows must be at most 90, got 100 \(arm long\)", said)


def test_an_optimizer_that_is_swapped_leaves_nothing_behind(project):
    write("network.yaml", NETWORK)
    where = "model.make_optimizer"
    plan = plan_grid(load(grid({"sgd": {where: SGD}, "class": {f"{where}.class_path": "SGD"}},
                          base="network.yaml")))  # fmt: skip
    made = {cell.arm: cell.config["model"]["init_args"] for cell in plan.compared}
    by_arm = {arm: arguments["make_optimizer"] for arm, arguments in made.items()}
    assert by_arm["base"]["init_args"]["betas"] == [0.8, 0.9]
    for arm, rate in (("sgd", 0.1), ("class", 0.001)):  # not AdamW's 0.3, but SGD's own
        assert by_arm[arm]["class_path"] == "torch.optim.SGD"
        assert by_arm[arm]["init_args"]["lr"] == rate
        assert not {"betas", "eps", "amsgrad"} & by_arm[arm]["init_args"].keys()
    assert plan.arms["sgd"].changes == [f"{where}: AdamW -> SGD"]


def test_what_the_new_optimizer_does_not_take_is_a_mistake(project):
    write("network.yaml", NETWORK)
    stale = {**SGD, "init_args": {"lr": 0.1, "betas": [0.8, 0.9]}}
    said = refused({"sgd": {"model.make_optimizer": stale}}, base="network.yaml")
    assert re.search(
        r"grid\.yaml:\d+: model\.init_args\.make_optimizer\.init_args\.betas: "
        r"torch\.optim\.SGD has no parameter 'betas' \(value \[0\.8, 0\.9\]\)",
        said,
    )


ABLATIONS = Path(__file__).parents[2] / "ablations"
SHALLOW = "model.init_args.pretzel.shallow.init_args"


def test_own_parts_are_swapped_whole(project):
    mixture = {"class_path": "pretzel.flow.MixtureCDF", "init_args": {"num_components": 3}}
    start = yaml.safe_load((ABLATIONS / "base" / "easy_vqa.yaml").read_text())
    part = start["model"]["init_args"]["pretzel"]["init_args"]["shallow"]["init_args"]
    part["transform"] = mixture
    write("mixture.yaml", start)
    arms = {
        "spline": {f"{SHALLOW}.transform": {"class_path": "pretzel.flow.Spline"}},
        "other": {f"{SHALLOW}.transform.num_components": 2},
    }
    plan = plan_grid(load(grid(arms, base="mixture.yaml", metrics={"train/loss": "min"})))
    found = {}
    for cell in plan.compared:
        shallow = cell.config["model"]["init_args"]["pretzel"]["init_args"]["shallow"]
        found[cell.arm] = shallow["init_args"]["transform"]
    assert found["base"]["init_args"]["num_components"] == 3
    assert found["other"]["init_args"]["num_components"] == 2
    assert found["spline"]["class_path"] == "pretzel.flow.Spline"
    assert "num_components" not in found["spline"]["init_args"]
    said = refused(
        {"width": {f"{SHALLOW}.conditioner.widht": 3},
         "spline": {f"{SHALLOW}.transform": {**mixture, "class_path": "pretzel.flow.Spline"}},
         "given": {f"{SHALLOW}.channels": 3}},
        base="mixture.yaml",
    )  # fmt: skip
    assert re.search(r"Spline has no parameter 'num_components' \(value 3\).* \(arm spline\)", said)
    assert re.search(
        r"grid\.yaml:\d+: \S+\.conditioner\.init_args\.widht: "
        r"pretzel\.flow\.CausalTransformer has no parameter 'widht' \(value 3\); "
        r"did you mean 'width'\? \(arm width\)",
        said,
    )
    # a size that the parent gives
    assert re.search(r"AFBlock is given its 'channels' by the part that makes it.*given\)", said)


def test_a_mistake_of_the_base_is_told_once(project):
    write("base.yaml", {**BASE, "trainer": {"max_stepz": 3}})
    said = refused({"fast": {"model.lr": 1}})
    assert said == (
        "base.yaml:2: trainer.max_stepz: unknown key (value 3); did you mean 'trainer.max_steps'?"
    )
