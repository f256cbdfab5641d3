"""Planning: every cell parsed by the real parser, every mistake in one report, nothing written."""

import json
import re
from pathlib import Path

import pytest
import yaml
from lab_files import BASE, write

from pretzel.__main__ import main
from pretzel.ablation.gridfile.reading import load
from pretzel.ablation.identity.differences import changes
from pretzel.ablation.plan_file import read_plan
from pretzel.ablation.planning.grid_to_plan import plan_grid
from pretzel.ablation.report import comparison
from pretzel.errors import UserError

CALLBACK = {"class_path": "lab.TestNorm"}
CUBIC = {"model.features": {"class_path": "lab.Cubic"}}
GRID = {
    "base": "base.yaml",
    "axes": {
        "features": {"linear": {}, "cubic": CUBIC},
        "rate": {"slow": {}, "fast": {"model.lr": 0.1}},
    },
    "seeds": [3, 5],
    "baseline": {"features": "linear", "rate": "slow"},
    "metrics": {"test/loss": "min"},
}


def grid(**changed):
    return load(write("grid.yaml", {**GRID, **changed}))


def refused(**changed):
    with pytest.raises(UserError) as caught:
        plan_grid(grid(**changed))
    return str(caught.value)


def test_cells_differ_only_where_the_arms_say(project):
    plan = plan_grid(grid())
    assert [cell.name for cell in plan.compared[:4]] == [
        "linear+slow/seed3", "linear+fast/seed3", "cubic+slow/seed3", "cubic+fast/seed3",
    ]  # fmt: skip
    assert {name: arm.changes for name, arm in plan.arms.items()} == {
        "linear+slow": [],
        "linear+fast": ["model.lr: 0.01 -> 0.1"],
        "cubic+slow": ["model.features: Linear -> Cubic"],
        "cubic+fast": ["model.features: Linear -> Cubic", "model.lr: 0.01 -> 0.1"],
    }
    cubic = next(cell for cell in plan.compared if cell.arm == "cubic+slow")
    # Linear's scale 3 must not have leaked into Cubic's
    assert cubic.config["model"]["init_args"]["features"]["init_args"] == {"scale": 1.0, "power": 3}
    for cell in plan.compared:  # the same data and noise for all arms of a seed
        config = cell.config
        seeds = [
            config["seed_everything"],
            *(config[g]["init_args"]["seed"] for g in ("model", "data")),
        ]
        assert seeds == [cell.seed] * 3
        assert config["trainer"]["default_root_dir"] == f"runs/grid/{cell.name}"
    assert len({cell.identity for cell in plan.compared}) == 8
    assert sorted(p.name for p in project.iterdir()) == ["base.yaml", "grid.yaml"]


def test_cells_start_seed_by_seed_or_arm_by_arm(project):
    def starts(**changed):
        return [cell.name for cell in plan_grid(grid(**changed)).compared[:3]]

    assert starts()[1] == starts(order="seeds")[1] == "linear+fast/seed3"
    assert starts(order="arms") == ["linear+slow/seed3", "linear+slow/seed5", "linear+fast/seed3"]


def test_identity_ignores_paths_and_loggers_and_nothing_else(project):
    one, again = (plan_grid(grid(seeds=[3])).compared[0] for _ in range(2))
    assert one.identity == again.identity
    moved = plan_grid(grid(seeds=[3], output="elsewhere")).compared[0]
    assert moved.identity == one.identity
    assert moved.config != one.config
    write("base.yaml", {**BASE, "trainer": {**BASE["trainer"], "log_every_n_steps": 7}})
    assert plan_grid(grid(seeds=[3])).compared[0].identity == one.identity
    write("base.yaml", {**BASE, "trainer": {**BASE["trainer"], "gradient_clip_val": 1.0}})
    assert plan_grid(grid(seeds=[3])).compared[0].identity != one.identity


def test_a_stage_is_part_of_the_identity_of_the_cells_that_use_it(project):
    use = {"linear": {}, "warm": {"model.weights": "{stages.warm}"}}

    def identities(stage):
        write("warm.yaml", stage)
        plan = plan_grid(
            grid(
                axes={"features": use},
                baseline={"features": "linear"},
                stages={"warm": "warm.yaml"},
            )
        )
        assert plan.stages[0].export
        warm = next(cell for cell in plan.compared if cell.arm == "warm")
        assert (
            warm.config["model"]["init_args"]["weights"]
            == "runs/grid/stages/warm/weights.safetensors"
        )
        return {cell.name: cell.identity for cell in plan.compared}

    before = identities(BASE)
    after = identities({**BASE, "trainer": {**BASE["trainer"], "max_steps": 7}})
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"warm/seed3", "warm/seed5"}


def test_a_stage_may_differ_from_its_files_and_follow_another(project):
    write("cold.yaml", BASE)
    follows = {"base": "cold.yaml", "model.lr": 0.5, "model.weights": "{stages.cold}"}
    plan = plan_grid(
        grid(
            axes={"features": {"linear": {}, "warm": {"model.weights": "{stages.warm}"}}},
            baseline={"features": "linear"},
            stages={"cold": "cold.yaml", "warm": follows},
        )
    )
    cold, warm = plan.stages
    assert (cold.needs, warm.needs) == ((), ("stages/cold",))
    model = warm.config["model"]["init_args"]
    assert model["lr"] == 0.5 != cold.config["model"]["init_args"]["lr"]
    assert model["weights"] == "runs/grid/stages/cold/weights.safetensors"


def test_all_mistakes_in_one_report(project, capsys):
    axes = {
        "features": {
            "linear": {},
            "typo": {"model.lrr": 1},
            "type": {"model.lr": "fast"},
            "class": {"model.features": {"class_path": "lab.Cubci"}},
            "stage": {"model.weights": "{stages.wram}"},
            "same": {"model.lr": 0.01},
        },
    }
    write("warm.yaml", BASE)
    values = {
        **GRID,
        "axes": axes,
        "baseline": {"features": "linear"},
        "stages": {"warm": "warm.yaml"},
    }
    write("grid.yaml", values)
    for command in ("plan", "run"):
        assert main(["grid", command, "grid.yaml"]) == 2
        said = capsys.readouterr().err
        assert "5 mistakes in grid.yaml, nothing was started" in said
        for expected in (
            r"grid\.yaml:\d+: model\.init_args\.lrr: .*no parameter 'lrr' \(value 1\)"
            r"; did you mean 'lr'\? \(arm typo\)",
            r"grid\.yaml:\d+: model\.init_args\.lr: expected float, got 'fast' \(arm type\)",
            r"no such class 'lab\.Cubci'; did you mean 'lab\.Cubic'\? \(arm class\)",
            r"no such stage 'wram'; did you mean 'warm'\? \(arm stage\)",
            r"same changes nothing against the baseline linear",
        ):
            assert re.search(expected, said), expected
    assert not Path("runs").exists()


def test_what_arms_append_is_in_all_that_is_run_hashed_and_shown(project):
    stopping = {"class_path": "EarlyStopping", "init_args": {"monitor": "train/loss"}}
    write("base.yaml", {**BASE, "trainer": {**BASE["trainer"], "callbacks": CALLBACK}})
    write("end.yaml", {"trainer": {"callbacks+": [stopping]}})  # a file appends as an arm does
    timer = {"class_path": "Timer", "init_args": {"verbose": False}}
    axes = {
        "first": {"none": {}, "more": {"trainer": {"callbacks+": timer}}},
        "second": {
            "plain": {},
            "patient": {"trainer.callbacks.1.patience": 9},
            "link": {"end.trainer.callbacks+": [{"class_path": "Timer"}]},
        },
    }
    plan = plan_grid(
        grid(
            chain={"end": "end.yaml"},
            axes=axes,
            combine="one_at_a_time",
            include=[{"first": "more", "second": "link"}],
            baseline={"first": "none", "second": "plain"},
            seeds=[3],
        )
    )
    assert {name: arm.changes for name, arm in plan.arms.items()} == {
        "none+plain": [],
        "more+plain": ["trainer.callbacks: [Timer] appended"],
        "none+patient": ["trainer.callbacks.1.patience: 3 -> 9"],
        "none+link": ["trainer.callbacks: [Timer] appended"],
        "more+link": ["trainer.callbacks: [Timer, Timer] appended"],
    }
    whole = [CALLBACK, stopping, timer, {"class_path": "lightning.pytorch.callbacks.Timer"}]
    axes = {"first": {"none": {}, "all": {"trainer.callbacks": whole}}}
    (_, written) = plan_grid(grid(axes=axes, baseline={"first": "none"}, seeds=[3])).compared
    appended = plan.compared[-1]
    callbacks = [run.config["trainer"]["callbacks"] for run in (appended, written)]
    assert callbacks[0] == callbacks[1]
    assert len(callbacks[0]) == 4
    assert (appended.identity, appended.evaluation) == (written.identity, written.evaluation)


def test_duplicate_arms_are_refused(project):
    axes = {
        "features": {
            "linear": {},
            "cubic": CUBIC,
            "again": {"model.features.class_path": "lab.Cubic"},
        }
    }
    assert "again is the same as cubic" in refused(axes=axes, baseline={"features": "linear"})


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"sedes": [1]}, r"grid\.yaml:\d+: sedes: unknown key; did you mean 'seeds'\?"),
        ({"baseline": {"features": "linaer", "rate": "slow"}},
         r"baseline\.features: no such arm 'linaer'; did you mean 'linear'\?"),
        ({"baseline": {"feature": "linear", "rate": "slow"}},
         r"no such axis; did you mean 'features'\?"),
        ({"baseline": {"features": "linear"}}, r"baseline: needs an arm of axis rate"),
        ({"metrics": {"test/loss": "down"}}, r"metrics\.test/loss: must be max or min, got 'down'"),
        ({"seeds": [1, 1]}, r"seeds: must be a list of different integers"),
        ({"combine": "zipp"},
         r"combine: must be product, zip or one_at_a_time, got 'zipp'; did you mean 'zip'\?"),
        ({"order": "rows"}, r"order: must be seeds or arms, got 'rows'"),
        ({"base": "bsae.yaml"}, r"base: bsae\.yaml: no such file"),
        ({"axes": {"a/b": {"x": {}}}, "baseline": {"a/b": "x"}}, r"a name becomes a folder"),
        ({"axes": {"a": {"x\n": {}}}, "baseline": {"a": "x\n"}},
         r"axes\.a\.x\\n: must be letters, digits"),
        ({"axes": {"a\n": {"x": {}}}, "baseline": {"a\n": "x"}},
         r"axes\.a\\n: must be letters, digits"),
        ({"axes": {"a": {"x": {}, "Plan.json": {}}}, "baseline": {"a": "x"}},
         r"grid\.yaml:\d+: axes\.a\.Plan\.json: is a file or folder of the grid itself"),
        ({"axes": {"a": {"x" * 256: {}}}, "baseline": {"a": "x"}}, r"at most 255 of them"),
        ({"axes": {"a": {"x" * 200: {}}, "b": {"y" * 55: {}}},
          "baseline": {"a": "x" * 200, "b": "y" * 55}},
         r"axes: x+\.\.\.\+y+ needs a folder name of 256 bytes, and 255 is the most"),
        ({"axes": {"a": {"x" * 200: {"tune": {"model.lr": [1, 2]}}}},
          "baseline": {"a": "x" * 200}, "tuning": {"metric": "v", "direction": "min"}},
         r"needs a folder name of 271 bytes"),
        ({"chain": {"x" * 245: "base.yaml"}}, r"its runs are folders named LINK-seedN-HASH"),
        ({"output": "a/" * 2000}, r"output: must be a path of at most 3896 bytes"),
        ({"axes": {"features": {"linear": {}, "more": {"trainer.callbacks+": CALLBACK}},
                   "rate": {"slow": {}, "none": {"trainer.callbacks": []}}}},
         r"axes\.rate\.none\.trainer\.callbacks: axis features sets trainer\.callbacks\+ too"),
        ({"axes": {"features": {"linear": {}, "more": {"trainer.max_steps+": 3}}},
          "baseline": {"features": "linear"}},
         r"grid\.yaml:\d+: trainer\.max_steps\+: appends to a list, and max_steps is 6 "
         r"\(base\.yaml:2\) \(arm more\)"),
        ({"axes": {"features": {"linear": {"model.lr": 1}},
                   "rate": {"slow": {}, "fast": {"model.lr": 2}}}},
         r"axis features sets model\.lr too; two axes may not set one key"),
    ],
)  # fmt: skip
def test_mistakes_of_the_grid_file(project, changed, expected):
    assert re.search(expected, refused(**changed))


def test_an_odd_plan_is_refused_in_a_sentence(project, capsys):
    plan_grid(grid(seeds=[3])).save()
    file = Path("runs/grid/plan.json")
    text = file.read_text()
    assert read_plan(file.parent) == json.loads(text)

    def changed(change):
        values = json.loads(text)
        change(values)
        return json.dumps(values)

    odd = {
        "{not json": "not JSON",
        "[" * 99999: "nested too deeply",
        "[]": "must be a mapping",
        changed(lambda plan: plan["runs"][1].pop("identity")): r"runs\.1\.identity: is missing",
        changed(
            lambda plan: plan["runs"][0].update(seed="x")
        ): r"runs\.0\.seed: must be a valid int",
        changed(lambda plan: plan["runs"][0].update(needs=["x"])): r"it names x, and does not say",
        changed(lambda plan: plan["runs"][0].update(name="../x")): r"name: must be a folder inside",
        changed(lambda plan: plan["metrics"].update(a="up")): r"metrics\.a: must be 'max' or 'min'",
        changed(lambda plan: plan.update(arms=None)): r"arms: must be a valid dictionary",
        changed(lambda plan: plan["arms"].pop("linear+slow")): r"it names linear\+slow",
    }
    for content, expected in odd.items():
        file.write_text(content)
        with pytest.raises(
            UserError, match=rf"^runs/grid/plan\.json: no plan of a grid: .*{expected}"
        ):
            read_plan(file.parent)
    assert main(["grid", "status", "grid.yaml"]) == 2
    assert capsys.readouterr().err.count("runs/grid/plan.json: no plan of a grid: ") == 1
    with pytest.raises(UserError, match="no plan of a grid"):
        comparison.load("runs/grid")


def test_a_stage_that_nothing_uses_is_refused(project):
    write("warm.yaml", BASE)
    assert "stages.warm: nothing names {stages.warm}" in refused(stages={"warm": "warm.yaml"})


def test_a_stage_must_export(project):
    write(
        "warm.yaml",
        {**BASE, "model": {"class_path": "lightning.pytorch.demos.boring_classes.BoringModel"}},
    )
    assert "BoringModel cannot be a stage" in refused(stages={"warm": "warm.yaml"})


def test_changes_name_added_and_removed_keys():
    base = {"model": {"class_path": "a.A", "init_args": {"x": 1}}, "k": 1}
    other = {"model": {"class_path": "a.A", "init_args": {"x": 2}}}
    assert changes(base, other) == ["k: 1 -> None", "model.x: 1 -> 2"]
    part = {"model": {"class_path": "a.A", "init_args": {"part": None}}}
    given = {"class_path": "b.B", "init_args": {"y": 1}}
    assert changes(part, {"model": {"class_path": "a.A", "init_args": {"part": given}}}) == [
        "model.part: None -> B"
    ]
    assert changes({"a": given}, {"a": None}) == ["a: B -> None"]


def test_what_cannot_go_together_is_refused_with_its_cell_also_behind_a_stage(tmp_path):
    ablations = Path(__file__).parents[2] / "ablations"
    deep = "model.init_args.pretzel.deep.init_args.transform"
    weights = "model.init_args.pretzel.latent.init_args.weights"
    mixture = {"class_path": "pretzel.flow.MixtureCDF", "init_args": {"num_components": 2}}
    values = {
        "base": str(ablations / "base" / "easy_vqa.yaml"),
        "stages": {"autoencoder": str(ablations / "stages" / "autoencoder.yaml")},
        "axes": {"arm": {"shipped": {}, "mixed": {deep: mixture, weights: "{stages.autoencoder}"}}},
        "seeds": [0],
        "baseline": {"arm": "shipped"},
        "metrics": {"test/right": "max"},
    }
    file = tmp_path / "grid.yaml"
    file.write_text(yaml.safe_dump(values))
    with pytest.raises(ValueError, match="needs an affine transform, got MixtureCDF") as caught:
        plan_grid(load(file))
    assert str(caught.value).endswith("(arm mixed)")
