"""The editors' schema and the reader are of one definition: they accept and refuse the same."""

import json
from pathlib import Path

import pytest
import yaml
from lab_files import write

from pretzel.__main__ import main
from pretzel.ablation.gridfile.reading import load
from pretzel.ablation.gridfile.schema import (
    ArmEntry,
    GridFile,
    Match,
    StageEntry,
    Tuning,
    grid_schema,
)
from pretzel.errors import UserError

jsonschema = pytest.importorskip("jsonschema")

ROOT = Path(__file__).parents[2]
YAMLS = [p for room in ("ablations", "examples") for p in sorted((ROOT / room).rglob("*.yaml"))]
GRIDS = [path for path in YAMLS if "axes" in yaml.safe_load(path.read_text())]
GRID = {
    "base": "base.yaml",
    "axes": {"features": {"linear": {}, "cubic": {"model.features": "lab.Cubic"}}},
    "baseline": {"features": "linear"},
    "metrics": {"test/loss": "min"},
}


def validator():
    schema = grid_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_every_grid_that_is_shipped_is_valid(path):
    validator().validate(yaml.safe_load(path.read_text()))


# Everything that types can say: the reader refuses it with the same types.
TYPOS = {
    "unknown key": {"sedes": [1]},
    "no axes": {"axes": {}},
    "axes are no list": {"axes": ["features"]},
    "an arm is a mapping": {"axes": {"features": {"linear": 3}}},
    "an axis's name": {"axes": {"a/b": {"linear": {}}}},
    "an override's key": {"axes": {"features": {"linear": {"model..lr": 1}}}},
    "combine": {"combine": "zipped"},
    "exclude is a list": {"exclude": {"features": "cubic"}},
    "an include names arms": {"include": [{"features": 3}]},
    "an empty include": {"include": [{}]},
    "seeds": {"seeds": ["1"]},
    "equal seeds": {"seeds": [1, 1]},
    "negative seeds": {"seeds": [-1]},
    "one seed": {"seeds": 1},
    "direction": {"metrics": {"test/loss": "down"}},
    "a link's name": {"chain": {"model": "base.yaml"}},
    "match by": {"match": {"by": "params", "via": "model.lr"}},
    "match without via": {"match": {"by": "flops"}},
    "match key": {"match": {"by": "flops", "via": "model.lr", "tolerence": 0.1}},
    "tolerance": {"match": {"by": "flops", "via": "model.lr", "tolerance": 0}},
    "tuning on the test": {"tuning": {"metric": "test/loss", "direction": "min"}},
    "one value to tune": {"axes": {"features": {"linear": {"tune": {"model.lr": [1]}}}}},
    "tune is a mapping": {"axes": {"features": {"linear": {"tune": ["model.lr"]}}}},
    "order": {"order": "rows"},
    "checkpoints": {"checkpoint_seconds": 0},
    "output": {"output": 3},
}


@pytest.mark.parametrize("changed", TYPOS.values(), ids=TYPOS)
def test_typos_are_refused_by_both(project, changed):
    values = {**GRID, **changed}
    assert not validator().is_valid(values)
    with pytest.raises(UserError):
        load(write("grid.yaml", values))
    for key in GRID:
        assert not validator().is_valid({k: v for k, v in GRID.items() if k != key})


def test_both_accept_everything_there_is(project):
    tuned = {"tune": {"model.lr": [1, 2]}, "model.features": {"class_path": "lab.Cubic"}}
    values = {
        **GRID,
        "axes": {"features": {"linear": {}, "cubic": tuned}, "rate": {"slow": {}, "x": {}}},
        "baseline": {"features": "linear", "rate": "slow"},
        "combine": "one_at_a_time",
        "exclude": [{"rate": ["x"]}],
        "include": [{"rate": "x", "features": "cubic"}],
        "seeds": [3, 4],
        "stages": {"warm": ["base.yaml"], "own": {"base": "base.yaml", "model.lr": 3}},
        "chain": {"first": "base.yaml", "last": ["base.yaml"]},
        "match": {"by": "flops", "via": "model.size", "tolerance": 1},
        "tuning": {"metric": "val/loss", "direction": "min", "seed": 7},
        "output": "out",
        "checkpoint_seconds": 3,
        "hang_seconds": 60,
        "order": "arms",
    }
    assert set(values) == GridFile.model_fields.keys()
    validator().validate(values)
    load(write("grid.yaml", values))


def test_the_command_prints_it_with_descriptions(project, capsys):
    assert main(["grid", "schema"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(json.dumps(grid_schema()))
    for kind in (GridFile, ArmEntry, Match, StageEntry, Tuning):
        node = printed if kind is GridFile else printed["$defs"][kind.__name__]
        assert node["description"]
        assert all(inner["description"] for inner in node["properties"].values())
