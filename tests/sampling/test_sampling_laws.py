"""Every concrete guidance, denoiser and sampler obeys its laws."""

import pytest

from pretzel.sampling.denoisers import Denoiser
from pretzel.sampling.guidance import Guidance
from pretzel.sampling.samplers import Sampler
from pretzel.testing import concrete_classes, run_laws
from pretzel.testing.builtin_parts import BUILTIN_PARTS

KINDS = (Guidance, Denoiser, Sampler)
TRIALS = [
    pytest.param(factory, id=f"{part.__name__}-{number}")
    for kind in KINDS
    for part in concrete_classes(kind, "pretzel")
    for number, factory in enumerate(BUILTIN_PARTS.get(part, ()))
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_concrete_class_has_a_case(kind):
    missing = [
        part.__name__ for part in concrete_classes(kind, "pretzel") if not BUILTIN_PARTS.get(part)
    ]
    assert not missing, f"no law case in pretzel/testing/builtin_parts.py for {missing}"


@pytest.mark.parametrize("factory", TRIALS)
def test_laws(factory):
    run_laws(factory)
