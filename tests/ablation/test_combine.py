"""Which arms go together, and what a grid file may say about it."""

import re

import pytest
from lab_files import write

from pretzel.ablation.gridfile.reading import load
from pretzel.errors import UserError

GRID = {
    "base": "base.yaml",
    "axes": {
        "size": {"s": {}, "m": {"model.size": 4}, "l": {"model.size": 5}},
        "rate": {"a": {}, "b": {"model.lr": 0.1}, "c": {"model.lr": 0.2}},
    },
    "baseline": {"size": "s", "rate": "a"},
    "metrics": {"test/loss": "min"},
}


def names(**changed):
    grid = load(write("grid.yaml", {**GRID, **changed}))
    return " ".join(combination.name for combination in grid.combinations)


def refused(**changed):
    with pytest.raises(UserError) as caught:
        names(**changed)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "s+a s+b s+c m+a m+b m+c l+a l+b l+c"),
        ({"combine": "zip"}, "s+a m+b l+c"),
        ({"combine": "one_at_a_time"}, "s+a m+a l+a s+b s+c"),
        ({"combine": "zip", "baseline": {"size": "l", "rate": "c"}}, "l+c s+a m+b"),
        ({"exclude": [{"size": "l"}]}, "s+a s+b s+c m+a m+b m+c"),
        ({"exclude": [{"size": ["m", "l"], "rate": ["b", "c"]}]}, "s+a s+b s+c m+a l+a"),
        ({"combine": "one_at_a_time", "include": [{"size": "l", "rate": ["b", "c"]}]},
         "s+a m+a l+a s+b s+c l+b l+c"),
        ({"combine": "zip", "include": [{"rate": "c"}]}, "s+a m+b l+c s+c"),
        ({"combine": "zip", "baseline": {"size": "s", "rate": "b"}, "include": [{"size": "s"}]},
         "s+b s+a m+b l+c"),
        # what is excluded at large may be included in part
        ({"exclude": [{"size": "l"}], "include": [{"size": "l", "rate": "c"}]},
         "s+a s+b s+c m+a m+b m+c l+c"),
    ],
)  # fmt: skip
def test_which_arms_go_together(project, changed, expected):
    assert names(**changed) == expected


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"exclude": [{"sise": "l"}]},
         r"grid\.yaml:\d+: exclude\.0\.sise: no such axis; did you mean 'size'\?"),
        ({"exclude": [{"size": "l"}, {"rate": ["b", "d"]}]},
         r"grid\.yaml:\d+: exclude\.1\.rate: no such arm 'd'"),
        ({"exclude": [{"size": "l"}, {"size": "l", "rate": "a"}]}, r"exclude\.1: removes nothing"),
        ({"exclude": [{"rate": "a"}]}, r"exclude\.0: would remove the baseline s\+a"),
        ({"include": [{"size": "m"}]}, r"grid\.yaml:\d+: include\.0: m\+a is there already"),
        ({"include": [{}]}, r"include\.0: must be a mapping of axes to an arm or a list of arms"),
        ({"include": "m"}, r"include: must be a list, got 'm'"),
        ({"combine": "zip", "axes": {**GRID["axes"], "size": {"s": {}, "m": {"model.size": 4}}}},
         r"combine: zip pairs .* needs as many on every axis: size has 2, rate has 3"),
        ({"combine": "zip", "baseline": {"size": "s", "rate": "b"}},
         r"baseline: zip gives no s\+b, only s\+a, m\+b, l\+c; include it"),
        ({"seeds": [0, "1"]}, r"seeds: must be a list of different integers from 0, got \[0, "),
        ({"checkpoint_seconds": 0}, r"checkpoint_seconds: must be a positive number, got 0"),
        ({"base": []}, r"base: must be a file or a list of files, got \[\]"),
        ({"axes": {"size": {"s": 3}}, "baseline": {"size": "s"}},
         r"axes\.size\.s: must be a mapping of dotted keys to values .* got 3"),
        ({"axes": {"size": {"s": {}, True: {}}}, "baseline": {"size": "s"}},
         r"axes\.size\.True: a key must be a text, got True: write it in quotes"),
        ({"axes": {"size": {"s": {}, "m": {3: 4}}}, "baseline": {"size": "s"}},
         r"axes\.size\.m\.3: a key must be a text, got 3: write it in quotes"),
        ({"include": [{"size": ["m", 3]}]},
         r"include\.0\.size: must be an arm or a list of arms, got \['m', 3\]"),
        ({"stages": "s.yaml"}, r"stages: must be a mapping of stages to files, got 's\.yaml'"),
        ({"stages": {"warm": {"model.lr": 1}}},
         r"stages\.warm: must be a file, a list of files, or a mapping of `base` to such .* got"),
        ({"stages": {"warm": {"base": "base.yaml", "lr rate": 1}}},
         r"grid\.yaml:\d+: stages\.warm\.lr rate: must be a dotted key, such as model"),
        ({"match": {"by": "params", "via": "model.size", "tol": 1}},
         r"match\.by: must be parameters or flops, got 'params'; did you mean 'parameters'\?"),
        ({"match": {"by": "flops"}}, r"match\.via: is missing; must be a dotted key"),
        ({"match": {"by": "flops", "via": "model.size", "tolerence": 1}},
         r"match\.tolerence: unknown key; did you mean 'tolerance'\?"),
        ({"match": "flops"}, r"match: must be a mapping with `by` and `via`, got 'flops'"),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_file_line_and_key(project, changed, expected):
    assert re.search(expected, refused(**changed))


def test_all_mistakes_of_the_file_are_in_one_report(project):
    said = refused(sedes=[1], order="rows", exclude=[{"size": "xl"}], metrics={"test/loss": "mni"})
    assert said.startswith("4 mistakes in grid.yaml, nothing was started:")
    for line in (
        "sedes: unknown key; did you mean 'seeds'?",
        "order: must be seeds or arms, got 'rows'",
        "exclude.0.size: no such arm 'xl'",
        "metrics.test/loss: must be max or min, got 'mni'; did you mean 'min'?",
    ):
        assert line in said


def test_a_grid_without_what_it_needs(project):
    with pytest.raises(UserError, match=r"baseline: is missing") as caught:
        load(write("grid.yaml", {"base": "base.yaml", "axes": GRID["axes"]}))
    assert "metrics: is missing; must be a mapping of metrics to max or min" in str(caught.value)
