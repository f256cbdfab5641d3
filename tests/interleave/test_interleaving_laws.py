"""Every concrete interleaving obeys the laws of the whole model."""

from functools import partial

import pytest
import torch
from torch import nn

from pretzel.interleave import Interleaving, Stacked
from pretzel.interleave.base import StreamOutputs
from pretzel.testing import Case, LawBroken, concrete_classes, laws_of, run_laws, tiny_pretzel
from pretzel.testing.cases import CASES
from pretzel.testing.suite import try_law

PARTS = concrete_classes(Interleaving, "pretzel")
TRIALS = [
    pytest.param(factory, id=f"{part.__name__}-{number}")
    for part in PARTS
    for number, factory in enumerate(CASES.get(part, ()))
]


def test_every_concrete_class_has_a_case():
    missing = [part.__name__ for part in PARTS if not CASES.get(part)]
    assert not missing, f"no law case in pretzel/testing/cases.py for {missing}"
    for part in PARTS:
        assert all(type(factory().interleaving) is part for factory in CASES[part])


@pytest.mark.parametrize("factory", TRIALS)
def test_laws(factory):
    run_laws(factory)


class SkipLooksAhead(Stacked):
    """W_vlm reads the next position's y_vlm; zero at initialisation, so invisible there."""

    def __init__(self, channels, hidden_size, width):
        super().__init__(channels, hidden_size, width)
        plain = self.vlm_skip
        self.vlm_skip = Ahead(plain)


class Ahead(nn.Module):
    def __init__(self, linear):
        super().__init__()
        self.linear = linear

    def forward(self, y):
        return self.linear(y.roll(-1, dims=1))


class TextSeesEverything(Stacked):
    def forward(self, inputs, vlm, deep, caches=None):
        outputs = super().forward(inputs, vlm, deep, caches)
        return StreamOutputs(
            deep=outputs.deep, text=outputs.text + inputs.u.mean(dim=(1, 2))[:, None, None]
        )


class ForgetsTheIndex(Stacked):
    def forward(self, inputs, vlm, deep, caches=None):
        if caches is not None and inputs.is_image.all():
            inputs = replaced(inputs, index=torch.zeros_like(inputs.index))
        return super().forward(inputs, vlm, deep, caches)


class ForgetsTheMask(Stacked):
    def forward(self, inputs, vlm, deep, caches=None):
        if caches is not None and inputs.is_image.all():
            inputs = replaced(inputs, mask=torch.ones_like(inputs.mask))
        return super().forward(inputs, vlm, deep, caches)


class RunsTheVlmTwice(Stacked):
    def forward(self, inputs, vlm, deep, caches=None):
        vlm(vlm.embed(inputs.tokens), inputs.index, None)
        return super().forward(inputs, vlm, deep, caches)


class SkipStartsOpen(Stacked):
    def __init__(self, channels, hidden_size, width):
        super().__init__(channels, hidden_size, width)
        nn.init.normal_(self.deep_skip.weight)


class UnusedLink(Stacked):
    def __init__(self, channels, hidden_size, width):
        super().__init__(channels, hidden_size, width)
        self.extra = nn.Linear(width, width)


class BlindToThePast(Stacked):
    def forward(self, inputs, vlm, deep, caches=None):
        return super().forward(replaced(inputs, u=torch.zeros_like(inputs.u)), vlm, deep, caches)


class Unfreezes(Stacked):
    def forward(self, inputs, vlm, deep, caches=None):
        vlm.requires_grad_(True)
        return super().forward(inputs, vlm, deep, caches)


def replaced(inputs, **changes):
    return type(inputs)(**{**vars(inputs), **changes})


BROKEN = [
    (SkipLooksAhead, "models.means_see_only_the_past"),
    (SkipLooksAhead, "models.likelihood_is_exact"),
    (SkipLooksAhead, "generation.samples_map_back_to_their_noise"),
    (BlindToThePast, "models.means_see_only_the_past"),
    (TextSeesEverything, "models.text_sees_only_the_past"),
    (ForgetsTheIndex, "generation.chunks_equal_the_whole"),
    (ForgetsTheIndex, "generation.guided_samples_mix_uncached_branches"),
    (ForgetsTheMask, "generation.rows_generate_independently"),
    (RunsTheVlmTwice, "generation.positions_are_committed_once"),
    (SkipStartsOpen, "models.text_starts_as_the_vlm"),
    (UnusedLink, "models.every_parameter_is_trained"),
    (Unfreezes, "models.every_parameter_is_trained"),
]


@pytest.mark.parametrize(("interleaving", "name"), BROKEN)
def test_the_right_law_catches(interleaving, name):
    factory = partial(tiny_pretzel, interleaving)
    (law,) = [law for law in laws_of(factory()) if law.name == name]
    first = name != "models.text_starts_as_the_vlm"
    outcome = try_law(law, Case(factory=factory, perturbed=first))
    assert not outcome.passed
    assert isinstance(outcome.cause, LawBroken)


def test_at_initialisation_a_leak_through_a_skip_is_invisible():
    factory = partial(tiny_pretzel, SkipLooksAhead)
    (law,) = [law for law in laws_of(factory()) if law.name == "models.likelihood_is_exact"]
    assert try_law(law, Case(factory=factory, perturbed=False)).passed
