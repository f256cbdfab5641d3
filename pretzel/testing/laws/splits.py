"""The laws of splits of layers."""

from contextlib import suppress

from pretzel.flow.layer_split import LayerCosts, Layers, Split
from pretzel.testing.deviation import Deviation, require, unmeasured
from pretzel.testing.law_case import Case

COSTS = [(10**power, 3 * 10**power) for power in range(9)]
"""Parameters of a shallow and of a deep layer; a split may refuse those that do not suit it."""


def accepted(split: Split, scale: int = 1) -> dict[tuple[int, int], Layers]:
    """Return the layers for all costs that a split accepts, deep layers ``scale`` times as dear."""
    layers = {}
    for shallow, deep in COSTS:
        costs = LayerCosts(shallow=shallow, deep=scale * deep)
        with suppress(ValueError):
            layers[shallow, deep] = split.layers(lambda costs=costs: costs)  # type: ignore[misc]
    return layers


def layers_are_whole_numbers(case: Case[Split]) -> Deviation:
    """A shallow block has no layer, or the deep block a negative or broken number of them."""
    layers = accepted(case.build())
    require(bool(layers), f"none of the costs {COSTS} of a shallow and a deep layer is accepted")
    for split in layers.values():
        numbers = [*split.shallow, split.deep]
        require(all(type(number) is int for number in numbers), f"layers must be int, got {split}")
        require(min([1, *split.shallow]) >= 1, f"a shallow block needs a layer, got {split}")
        require(split.deep >= 0, f"deep must be 0 or positive, got {split}")
    return unmeasured("whole numbers of layers")


def equal_costs_give_equal_layers(case: Case[Split]) -> Deviation:
    """The layers depend on more than the configuration and the costs of a layer."""
    split = case.build()
    first = accepted(split)
    for again in (accepted(split), accepted(case.build(seed=1))):
        require(again == first, f"layers {first} become {again}")
    return unmeasured("equal layers")


def dearer_layers_are_not_more(case: Case[Split]) -> Deviation:
    """The deep block gets more layers where its layers have more parameters."""
    split = case.build()
    cheap, dear = accepted(split), accepted(split, scale=2)
    for cost in cheap.keys() & dear.keys():
        more = dear[cost].deep > cheap[cost].deep
        require(not more, f"{cheap[cost]} becomes {dear[cost]} when deep layers are twice as large")
    return unmeasured("no more of dearer layers")
