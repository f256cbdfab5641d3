"""Every part of ours that is no part of the flow and no interleaving obeys its laws."""

import pytest

from pretzel.cli.check.trials import IN_BLOCK
from pretzel.flow import FlowBlock, Permutation, Transform
from pretzel.interleave import Interleaving
from pretzel.runs.import_path import PACKAGES
from pretzel.testing import run_laws
from pretzel.testing.builtin_parts import shipped_cases
from pretzel.testing.suite import parts_of

IN_BLOCKS = (base for base, *_ in IN_BLOCK)
ELSEWHERE = (FlowBlock, *IN_BLOCKS, Transform, Permutation, Interleaving)
TRIALS = [
    pytest.param(factory, id=f"{part.__name__}-{number}")
    for package in PACKAGES
    for part in parts_of(package)
    if not issubclass(part, ELSEWHERE)
    for number, factory in enumerate(shipped_cases(part))
]


@pytest.mark.parametrize("factory", TRIALS)
def test_laws(factory):
    run_laws(factory)
