"""Parts broken in one subtle way each are caught by the law that is about their mistake."""

import importlib
import pkgutil

import broken_parts
import pytest
from broken_parts import blocks

from pretzel.testing import run_laws
from pretzel.testing.suite import cases_of, try_law

BROKEN = {
    f"{module.name}-{number}-{broken.law}": broken
    for module in pkgutil.iter_modules(broken_parts.__path__)
    for number, broken in enumerate(importlib.import_module(f"broken_parts.{module.name}").BROKEN)
}


def failures(factory, name):
    """Return what a law says of a part in each state in which it fails; it must have been tried."""
    outcomes = [try_law(law, case) for law, case in cases_of(factory) if law.name == name]
    assert outcomes, f"no law {name} for this part"
    return [str(outcome) for outcome in outcomes if not outcome.passed]


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_the_right_law_catches(broken):
    assert failures(broken.part, broken.law)
    assert not failures(broken.original, broken.law)


def test_a_correct_block_with_dropout_passes():
    outcomes = run_laws(blocks.dropout(blocks.Dropout))
    left_out = [o.law.name for o in outcomes if "judged in evaluation" in o.detail]
    assert "blocks.inverse_undoes_forward" in left_out
    assert "gradients.gradients_are_those_of_finite_differences" not in left_out
