import pytest
import torch
from torch import nn

from pretzel.flow import ExplicitSplit, FractionSplit, ParameterSplit
from pretzel.flow.layer_split import LayerCosts, Layers, layer_costs


def no_costs():
    raise AssertionError("a split by layers asked for the parameters of a layer")


def costs(shallow, deep):
    return lambda: LayerCosts(shallow=shallow, deep=deep)


def test_explicit():
    assert ExplicitSplit([2, 1], 4).layers(no_costs) == Layers(shallow=(2, 1), deep=4)
    assert ExplicitSplit([], 4).layers(no_costs) == Layers(shallow=(), deep=4)


@pytest.mark.parametrize(
    ("total", "fraction", "blocks", "expected"),
    [
        (8, 0.5, 2, Layers(shallow=(2, 2), deep=4)),
        (10, 0.3, 3, Layers(shallow=(1, 1, 1), deep=7)),
        (6, 0.0, 0, Layers(shallow=(), deep=6)),
        (34, 10 / 34, 5, Layers(shallow=(2,) * 5, deep=24)),
    ],
)
def test_fraction(total, fraction, blocks, expected):
    split = FractionSplit(total, fraction, blocks).layers(no_costs)
    assert split == expected
    assert sum(split.shallow) + split.deep == total


@pytest.mark.parametrize("arguments", [(8, 0.5, 3), (8, 0.3, 2), (8, 0.0, 2), (8, 0.5, 0)])
def test_fractions_that_do_not_divide_are_refused(arguments):
    with pytest.raises(ValueError, match=f"total={arguments[0]}"):
        FractionSplit(*arguments)


@pytest.mark.parametrize(("shallow", "deep"), [([0], 2), ([1], -1), ([1, -1], 2)])
def test_layers_must_be_positive(shallow, deep):
    with pytest.raises(ValueError, match="must be positive"):
        ExplicitSplit(shallow, deep)


@pytest.mark.parametrize(
    ("arguments", "cost", "expected"),
    [
        # 400 / 2 = 200 for each shallow block, and 600 for the deep one: no rounding
        ((1000, 0.4, 2), (100, 200), Layers(shallow=(2, 2), deep=3)),
        # 0.3 * 1000 / 2 = 150 is 1.5 layers: up to 2; the deep block has what is left, 600
        ((1000, 0.3, 2), (100, 200), Layers(shallow=(2, 2), deep=3)),
        # 0.28 * 1000 / 2 = 140 is 1.4 layers: down to 1; left are 800
        ((1000, 0.28, 2), (100, 200), Layers(shallow=(1, 1), deep=4)),
        # left are 700: 3.5 layers, up to 4
        ((1000, 0.3, 3), (100, 200), Layers(shallow=(1, 1, 1), deep=4)),
        ((1000, 0.0, 0), (0, 300), Layers(shallow=(), deep=3)),
    ],
)
def test_parameters_are_rounded_to_whole_layers(arguments, cost, expected):
    assert ParameterSplit(*arguments).layers(costs(*cost)) == expected


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 0.8])
def test_parameters_stay_within_half_a_deep_layer_of_the_budget(fraction):
    total, (shallow, deep) = 12_345_678, (140_001, 330_007)
    layers = ParameterSplit(total, fraction, 3).layers(costs(shallow, deep))
    assert abs(sum(layers.shallow) * shallow + layers.deep * deep - total) <= deep / 2
    assert abs(sum(layers.shallow) * shallow - fraction * total) <= 3 * shallow / 2


@pytest.mark.parametrize(
    ("arguments", "cost"),
    [((1000, 0.1, 3), (100, 200)), ((1000, 0.9, 1), (100, 201)), ((100, 0.0, 0), (0, 201))],
)
def test_budgets_that_leave_a_block_without_layers_are_refused(arguments, cost):
    with pytest.raises(ValueError, match=f"total={arguments[0]} .*must give each block a layer"):
        ParameterSplit(*arguments).layers(costs(*cost))


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((0, 0.5, 1), "total"),
        ((100, 1.0, 1), "shallow_fraction"),
        ((100, -0.1, 1), "shallow_fraction"),
        ((100, 0.0, 2), "num_shallow"),
        ((100, 0.5, 0), "num_shallow"),
        ((100, 0.0, -1), "num_shallow"),
    ],
)
def test_budgets_are_checked(arguments, name):
    with pytest.raises(ValueError, match=f"{name} must be"):
        ParameterSplit(*arguments)


def test_layers_without_parameters_have_no_budget():
    with pytest.raises(ValueError, match="layer must have parameters"):
        ParameterSplit(100, 0.5, 1).layers(costs(0, 10))


def test_layer_costs_are_what_a_layer_adds_and_draw_no_random_number():
    def build(width):
        def block(num_layers):
            head = nn.Linear(width, 3)
            return nn.Sequential(head, *(nn.Linear(width, width) for _ in range(num_layers)))

        return block

    before = torch.get_rng_state()
    assert layer_costs(build(4), build(6)) == LayerCosts(shallow=4 * 4 + 4, deep=6 * 6 + 6)
    assert torch.get_rng_state().equal(before)
