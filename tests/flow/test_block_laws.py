"""Every concrete flow block, transform and permutation obeys its laws."""

import gc

import pytest

from pretzel.cli.check.trials import IN_BLOCK
from pretzel.flow import Flip, FlowBlock, Permutation, Transform
from pretzel.testing import concrete_classes, run_laws
from pretzel.testing.builtin_parts import BUILTIN_PARTS

KINDS = (FlowBlock, *(base for base, *_ in IN_BLOCK), Transform, Permutation)
# The same case may stand for a block and for the parts in it.
NAMED = {
    id(factory): pytest.param(factory, id=f"{part.__name__}-{number}")
    for kind in KINDS
    for part in concrete_classes(kind, "pretzel")
    for number, factory in enumerate(BUILTIN_PARTS.get(part, ()))
}
TRIALS = list(NAMED.values())


@pytest.mark.parametrize("kind", KINDS)
def test_every_concrete_class_has_a_case(kind):
    missing = [
        part.__name__ for part in concrete_classes(kind, "pretzel") if not BUILTIN_PARTS.get(part)
    ]
    assert not missing, f"no law case in pretzel/testing/builtin_parts.py for {missing}"


@pytest.mark.parametrize("factory", TRIALS)
def test_laws(factory):
    run_laws(factory)


def test_a_new_class_is_discovered():
    before = concrete_classes(Permutation, "pretzel")
    new = type("Sideways", (Flip,), {"__module__": "pretzel.flow.sideways"})
    assert set(concrete_classes(Permutation, "pretzel")) - set(before) == {new}
    assert new not in BUILTIN_PARTS
    del new
    gc.collect()  # classes are cycles, and this one must not be found by other tests
    assert concrete_classes(Permutation, "pretzel") == before


def test_abstract_and_foreign_classes_are_left_out():
    actual = concrete_classes(Transform, "pretzel")
    foreign = type("Foreign", (Flip,), {"__module__": "elsewhere"})
    assert foreign not in concrete_classes(Permutation, "pretzel")
    assert {part.__name__ for part in actual} >= {"AffineExp", "AffineSoftplus"}
    assert "AffineTransform" not in {part.__name__ for part in actual}
