"""Sizes of arms, counted without memory, and integers solved for so that they are equal."""

import json
import re
from pathlib import Path

import pytest
from lab_files import write

from pretzel.ablation.gridfile.reading import load
from pretzel.ablation.planning.grid_to_plan import plan_grid
from pretzel.ablation.planning.integer_search import solve
from pretzel.errors import UserError


def square(width: int) -> int:
    return 12 * width * width + 500 * width


@pytest.mark.parametrize(
    ("start", "target", "tolerance", "admissible", "expected"),
    [
        (128, square(128), 0.02, 1, 128),
        (128, int(square(128) * 1.01), 0.02, 1, 128),  # as it is, if that is near enough
        (128, square(100), 0.001, 1, 100),
        (128, square(1000), 0.001, 8, 1000),
        (128, square(96), 0.02, 32, 96),
        (96, square(160), 0.02, 32, 160),
        (24, square(33), 0.001, 3, 33),
        (1, square(7), 0.001, 1, 7),
        (128, square(3), 0.001, 1, 3),
    ],
)
def test_the_integer_is_found_in_few_tries(start, target, tolerance, admissible, expected):
    tried = []

    def size(value):
        tried.append(value)
        return square(value) if value % admissible == 0 else None

    found, left = solve(size, start, target, tolerance)
    assert found == expected
    assert left == square(found) / target - 1
    assert len(tried) == len(set(tried)) <= 9


def test_sizes_that_fall_are_matched_too():
    assert solve(lambda v: 1_000_000 // v, 10, 50_000, 0.01) == (20, 0.0)


@pytest.mark.parametrize(
    ("size", "target", "expected"),
    [
        (lambda v: square(v) if v % 32 == 0 else None, square(112), r"the nearest is 96, -23\.2 %"),
        (lambda v: 7, 50, r"the nearest is 128, -86\.0 %"),
        (lambda v: v if v < 200 else None, 400, r"the nearest is 199, -50\.2 %"),
        (square, 10, r"the nearest is 1, \+5020\.0 %"),
    ],
)
def test_what_cannot_be_reached_is_told_with_the_nearest(size, target, expected):
    tried = []

    def counted(value):
        tried.append(value)
        return size(value)

    with pytest.raises(UserError, match=expected):
        solve(counted, 128, target, 0.02)
    assert len(tried) <= 200


def layers(name: str, **init_args):
    return {"class_path": f"lab_sizes.{name}", "init_args": init_args}


BASE = {
    "trainer": {"accelerator": "cpu", "max_steps": 2},
    "model": {
        "class_path": "lab_sizes.Network",
        "init_args": {"layers": layers("Square", width=128, heads=4)},
    },
    "data": {"class_path": "lab.Line"},
}
VIA = "model.init_args.layers.init_args.width"
PAIR = {"model.layers": layers("Pair", width=128, heads=4)}
GRID = {
    "base": "sizes.yaml",
    "axes": {"layers": {"square": {}, "pair": PAIR}},
    "baseline": {"layers": "square"},
    "metrics": {"test/loss": "min"},
}
MATCH = {"by": "parameters", "via": VIA, "tolerance": 0.05}


def planned(**changed):
    write("sizes.yaml", BASE)
    return plan_grid(load(write("grid.yaml", {**GRID, **changed})))


def refused(**changed):
    with pytest.raises(UserError) as caught:
        planned(**changed)
    return str(caught.value)


def test_every_arm_is_counted(project):
    silent = {"model": {"class_path": "lab_sizes.Silent", "init_args": {"layers": layers("Wide")}}}
    blind = {
        "model": {
            "class_path": "lab_sizes.Silent",
            "init_args": {"layers": layers("Wide"), "peeks": True},
        }
    }
    plan = planned(axes={"layers": {"square": {}, "pair": PAIR, "silent": silent, "blind": blind}})
    plan.save()
    arms = json.loads(Path("runs/grid/plan.json").read_text())["arms"]
    counted = {arm: (told["parameters"], told["flops"]) for arm, told in arms.items()}
    rows = 3  # half of the six of the example
    assert counted == {
        "square": ({"trainable": 128**2, "frozen": 10}, rows * 2 * 128**2),
        "pair": ({"trainable": 2 * 128**2, "frozen": 10}, rows * 4 * 128**2),
        "silent": ({"trainable": 64, "frozen": 0}, None),
        "blind": (None, None),
    }


@pytest.mark.parametrize("by", ["parameters", "flops"])
def test_arms_are_matched(project, by):
    plan = planned(match={**MATCH, "by": by}, seeds=[0, 1])
    # of the multiples of 4, the square of 92 is nearest to half of 128^2
    told = f"matched: width 128 -> 92, {by} +3.3 %"
    assert {name: arm.changes for name, arm in plan.arms.items()} == {
        "square": [],
        "pair": ["model.layers: Square -> Pair", told],
    }
    for cell in plan.compared:
        width = cell.config["model"]["init_args"]["layers"]["init_args"]["width"]
        assert width == (92 if cell.arm == "pair" else 128)
    unmatched = planned(seeds=[0, 1])
    same = [
        a.identity == b.identity for a, b in zip(plan.compared, unmatched.compared, strict=True)
    ]
    assert same == [cell.arm == "square" for cell in plan.compared]
    matched = plan.as_json()["arms"]["pair"]["matched"]
    assert (matched["before"], matched["after"], matched["by"]) == (128, 92, by)


def test_what_is_near_enough_stays_and_is_told(project):
    pair = {"model.layers": layers("Pair", width=92)}
    plan = planned(axes={"layers": {"square": {}, "pair": pair}}, match=MATCH)
    assert plan.arms["pair"].changes[1:] == ["matched: width stays 92, parameters +3.3 %"]


def test_every_link_of_a_chain_has_the_solved_integer(project):
    write("more.yaml", {"trainer": {"max_steps": 3}})
    plan = planned(match=MATCH, chain={"first": "sizes.yaml", "last": "more.yaml"})
    pair = next(cell for cell in plan.runs if cell.arm == "pair")
    runs = [pair, *(run for run in plan.runs if run.name in pair.needs)]
    assert len(runs) == 2
    for run in runs:
        assert run.config["model"]["init_args"]["layers"]["init_args"]["width"] == 92


def test_an_arm_that_is_not_applicable_is_not_matched(project):
    never = {"model.layers": {"class_path": "lab_sizes.Never"}}
    plan = planned(axes={"layers": {"square": {}, "never": never}}, match=MATCH)
    assert "there is no such model" in plan.arms["never"].absent[""]


WIDE = {"model.layers": layers("Wide")}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"match": {**MATCH, "tolerance": 0.01}},
         r"grid\.yaml: match: parameters cannot be matched within 1 %: the nearest is 92, "
         r"\+3\.3 % \(arm pair\)"),
        ({"match": {**MATCH, "via": "model.layers.heads"}},
         r"match: parameters cannot be matched within 5 %: the nearest is 4, \+100\.0 %"),
        ({"match": {**MATCH, "via": "model.layers.widht"}},
         r"match: model\.layers\.widht must be an integer, it is None"),
        ({"match": MATCH, "axes": {"layers": {"square": {}, "wide": WIDE}}},
         r"match: model\.init_args\.layers\.init_args\.width must be an integer, it is None "
         r"\(arm wide\)"),
        ({"match": MATCH, "axes": {"layers": {"square": {}, "pair": {"model.layers.width": 64}}}},
         r"grid\.yaml:\d+: model\.\S+width: is solved for \(grid\.yaml: match\), so no arm may "
         r"set it \(arm pair\)"),
        ({"match": MATCH,
          "axes": {"layers": {"square": {}, "pair": {"model.layers": {"width": 128, "heads": 2}}}}},
         r"is solved for \(grid\.yaml: match\), so no arm may set it"),
        ({"match": MATCH,
          "axes": {"layers": {"square": {}, "pair": {"model.layers": layers("Pair", heads=3)}}}},
         r"Pair needs width \(arm pair\)"),
    ],
)  # fmt: skip
def test_mistakes(project, changed, expected):
    assert re.search(expected, refused(**changed))


def test_flops_need_a_module_that_offers_them(project):
    silent = {"class_path": "lab_sizes.Silent", "init_args": {"layers": layers("Wide")}}
    write("sizes.yaml", {**BASE, "model": silent})
    axes = {"layers": {"wide": {}, "more": {"model.layers.breadth": 9}}}
    match = {"by": "flops", "via": "model.layers.breadth"}
    grid = {**GRID, "axes": axes, "baseline": {"layers": "wide"}, "match": match}
    with pytest.raises(UserError, match=r"needs a model that offers example_forward\(\)"):
        plan_grid(load(write("grid.yaml", grid)))
