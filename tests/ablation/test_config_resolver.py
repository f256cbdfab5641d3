"""Parsing only what differs gives what parsing everything gives, at a fraction of the work."""

import copy
import re
from pathlib import Path

import pytest
from lab_files import BASE, write

from pretzel.ablation.gridfile.reading import load
from pretzel.ablation.gridfile.run_config import overridden, seeded
from pretzel.ablation.planning.config_resolver import Resolver
from pretzel.ablation.planning.grid_to_plan import Planner
from pretzel.ablation.planning.model_builder import Builder, PlanningCLI
from pretzel.errors import UserError
from pretzel.runs.config.overlay import Config, fold, read

ABLATIONS = Path(__file__).parents[2] / "ablations"
CUBIC = {"class_path": "lab.Cubic"}
LINEAR = {"class_path": "lab.Linear"}


@pytest.fixture(scope="module")
def cli():
    return PlanningCLI()


def same(cli, configs):
    """Assert that all configurations come to what each comes to by itself; return the resolver."""
    resolve = Resolver(cli)
    for config in configs:
        found, alone = resolve(config), Resolver(cli)(config)
        assert found.values == alone.values
        assert repr(found.values) == repr(alone.values)  # 1 is not 1.0, and the order is the same
        assert found.namespace == alone.namespace
    return resolve


@pytest.mark.parametrize(
    "name", ["quickstart", "transform", pytest.param("interleaving", marks=pytest.mark.slow)]
)
def test_the_cells_of_real_grids(cli, name):
    grid = load(ABLATIONS / f"{name}.yaml")
    configs = [
        seeded(
            overridden(
                fold([read(f) for f in (*grid.base, *files)]),
                [one for one in combination.overrides(link) if one.key],
            ),
            1,
        )
        for link, files in (grid.chain or {"": ()}).items()
        for combination in grid.combinations
    ]
    written = copy.deepcopy([config.values for config in configs])
    resolve = same(cli, configs)
    assert resolve.wholes == 1
    assert [config.values for config in configs] == written


@pytest.mark.parametrize(
    "changes",
    [
        {"model.lr": 1},  # a number of the other kind
        {"model.lr": 1e-3, "trainer.max_steps": 7},
        {"model.features": CUBIC},
        {"model.features": {**CUBIC, "init_args": {"power": 2}}},
        {"model.features": "lab.Cubic"},
        {"model.features": {"class_path": "Cubic"}},  # short names
        {"model.features.offset": None},
        {"trainer.limit_val_batches": 1},  # one batch, not all of them
        {"trainer.limit_val_batches": 1.0},
        {"trainer.callbacks": [{"class_path": "LearningRateMonitor"}]},
        {"trainer.logger": False},
        {"model": {"class_path": "lab.LeastSquares", "init_args": {"features": LINEAR, "size": 4}}},
        {"data.rows": 5, "data.shards": "x"},
        {"data": {"class_path": "lab.Line"}},
        {"trainer.callbacks+": {"class_path": "LearningRateMonitor"}},
        {"seed_everything": 3},
    ],
    ids=str,
)
def test_all_kinds_of_changes(project, cli, changes):
    write("other.yaml", changes)
    base = read("base.yaml")
    same(cli, [base, fold([base, read("other.yaml")]), base])


def test_an_argument_left_out_has_its_default_again(project, cli):
    with_size = {**BASE["model"], "init_args": {**BASE["model"]["init_args"], "size": 7}}
    same(cli, [Config(values={**BASE, "model": with_size}), Config(values=BASE)])


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"model.lrr": 1}, r"base\.yaml:\d+: .*no parameter 'lrr' \(value 1\); did you mean 'lr'"),
        ({"model.lr": "x"}, r"base\.yaml:\d+: model\.init_args\.lr: expected float, got 'x'"),
        ({"model.features": "lab.Cubci"}, r"did you mean 'lab\.Cubic'\?"),
        ({"model.features": {**CUBIC, "init_args": {"offset": 1}}}, r"no parameter 'offset'"),
        ({"trainer.max_stepz": 1}, r"trainer\.max_stepz: unknown key"),
    ],
)
def test_mistakes_are_told_as_ever(project, cli, changed, expected):
    resolve = Resolver(cli)
    resolve(read("base.yaml"))
    write("other.yaml", changed)
    with pytest.raises(UserError) as caught:
        resolve(fold([read("base.yaml"), read("other.yaml")]))
    assert re.search(expected.replace("base", "other"), str(caught.value))


GRID = {
    "base": "base.yaml",
    "axes": {
        "rate": {"a": {}, **{f"r{i}": {"model.lr": 0.1 + i} for i in range(19)}},
        "features": {"linear": {}, "cubic": {"model.features": CUBIC}},
    },
    "baseline": {"rate": "a", "features": "linear"},
    "metrics": {"test/loss": "min"},
}


def counted(**changed):
    planner = Planner(load(write("grid.yaml", {**GRID, **changed})))
    plan = planner.plan()
    resolve = planner.resolve
    return len(plan.runs), resolve.wholes, resolve.arguments, planner.build.builds


def test_seeds_share_parses_and_builds_and_arms_most_of_them(project):
    # 40 configurations: one parsed as a whole, 19 rates and one class once each
    assert counted(seeds=list(range(10))) == (400, 1, 20, 40)


def test_a_model_is_built_once_where_arms_differ_elsewhere(project):
    write("sizes.yaml", {
        "data": BASE["data"],
        "model": {"class_path": "lab_sizes.Network", "init_args": {
            "layers": {"class_path": "lab_sizes.Square", "init_args": {"width": 8}},
            "make_optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
        }},
    })  # fmt: skip
    rates = {f"r{i}": {"model.make_optimizer.lr": 0.2 + i} for i in range(9)}
    steps = {f"s{i}": {"trainer.max_steps": 3 + i} for i in range(9)}
    axes = {"arm": {"a": {}, **rates, **steps, "wide": {"model.layers.width": 9}}}
    found = counted(base="sizes.yaml", axes=axes, baseline={"arm": "a"}, seeds=[0, 1])
    # the module keeps what makes its optimizer for later, so its arguments make no other model
    assert found == (40, 1, 19, 2)


def test_a_factory_that_is_called_makes_other_models_and_one_that_is_kept_does_not(project, cli):
    resolve, build = Resolver(cli), Builder(cli)

    def size(rows, lr):
        made = {"class_path": "lab_sizes.Longer", "init_args": {"rows": rows}}
        kept = {"class_path": "torch.optim.SGD", "init_args": {"lr": lr}}
        init_args = {"made": made, "kept": kept}
        model = {"class_path": "lab_sizes.Factories", "init_args": init_args}
        config = Config(values={"data": BASE["data"], "model": model})
        sizes = build(config, resolve(config), count=False)
        return sizes and sizes.trainable

    assert [size(2, 0.1), size(2, 0.2), size(3, 0.2), size(3, 0.3)] == [8, 8, 12, 12]
    assert build.builds == 2


def test_parts_of_another_class_are_not_taken_for_unmade(project, cli):
    # the same class is made in one place and kept in another
    resolve, build = Resolver(cli), Builder(cli)
    for width in (2, 3):
        layers = {"class_path": "lab_sizes.Square", "init_args": {"width": width}}
        model = {"class_path": "lab_sizes.Network", "init_args": {"layers": layers}}
        config = Config(values={"data": BASE["data"], "model": model})
        sizes = build(config, resolve(config), count=True)
        assert (sizes.trainable, sizes.flops) == (width**2, 6 * width**2)
    assert build.builds == 2
