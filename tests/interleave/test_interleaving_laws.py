"""Every concrete interleaving obeys the laws of the whole model."""

from functools import partial

import pytest
import torch
from torch import nn

from pretzel.interleave import GatedSkip, Interleaving, LatentInput, Stacked, ZeroSkip
from pretzel.interleave import mixture as mixture_module
from pretzel.interleave.base import StreamOutputs
from pretzel.interleave.mixture import MixtureOfTransformers
from pretzel.interleave.routed import routed
from pretzel.interleave.tiled import Tiled
from pretzel.testing import Case, LawBroken, concrete_classes, laws_of, run_laws, tiny_pretzel
from pretzel.testing.builtin_parts import BUILTIN_PARTS
from pretzel.testing.suite import cases_of, try_law

PARTS = concrete_classes(Interleaving, "pretzel")
TRIALS = [
    pytest.param(factory, number > 0, id=f"{part.__name__}-{number}")
    for part in PARTS
    for number, factory in enumerate(BUILTIN_PARTS.get(part, ()))
]
VARIANTS = [pytest.param(trial.values[0], id=trial.id) for trial in TRIALS if trial.values[1]]
# What skips, adapters, vision inputs and words may break; all of them in the slow test
OF_VARIANTS = (
    "models.",
    "generation.chunks_equal",
    "generation.positions_are_committed",
    "generation.conversations_commit",
    "generation.conversations_equal",
)


def test_every_concrete_class_has_a_case():
    missing = [part.__name__ for part in PARTS if not BUILTIN_PARTS.get(part)]
    assert not missing, f"no law case in pretzel/testing/builtin_parts.py for {missing}"
    for part in PARTS:
        assert all(type(factory().interleaving) is part for factory in BUILTIN_PARTS[part])


@pytest.mark.parametrize(("factory", "is_variant"), TRIALS)
def test_laws(factory, is_variant):
    if not is_variant:
        run_laws(factory)
        return
    cases = [(law, c) for law, c in cases_of(factory) if law.name.startswith(OF_VARIANTS)]
    outcomes = [try_law(law, case) for law, case in cases]
    assert not [str(outcome) for outcome in outcomes if not outcome.passed]


@pytest.mark.slow  # half a minute each
@pytest.mark.parametrize("factory", VARIANTS)
def test_all_laws_of_variants(factory):
    run_laws(factory)


class Drops(Stacked):
    """Dropout, as it should be: not in evaluation mode, in which it is judged."""

    def forward(self, inputs, vlm, deep, caches=None):
        outputs = super().forward(inputs, vlm, deep, caches)
        return replaced(outputs, deep=nn.functional.dropout(outputs.deep, 0.1, self.training))


def test_a_right_interleaving_with_dropout_is_none_that_breaks_laws():
    cases = [(law, c) for law, c in cases_of(partial(tiny_pretzel, Drops)) if "models" in law.name]
    outcomes = [try_law(law, case) for law, case in cases]
    assert not [str(outcome) for outcome in outcomes if not outcome.passed]


class SkipLooksAhead(Stacked):
    """W_vlm reads the next position's y_vlm; zero at initialisation, so invisible there."""

    def __init__(self, channels, hidden_size, width):
        super().__init__(channels, hidden_size, width)
        self.vlm_skip = Ahead(hidden_size, width)


class Ahead(ZeroSkip):
    def contribution(self, source):
        return super().contribution(source.roll(-1, dims=1))


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
        nn.init.normal_(self.deep_skip.linear.weight)


class UnusedSkip(Stacked):
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


class ZeroTimesZero(GatedSkip):
    """Neither factor gets a gradient while the other is zero."""

    def __init__(self, source, target):
        super().__init__(source, target)
        nn.init.zeros_(self.linear.weight)


class OpenToUnfinishedImages(Tiled):
    """Lets the VLM, which is shown x, into the image that is being modelled."""

    def forward(self, *args):
        self.vision_input.is_causal = True
        outputs = super().forward(*args)
        self.vision_input.is_causal = False
        return outputs


class ShownTwice(Stacked):
    """The flow reads the adapted image beside u, without a skip."""

    def __init__(self, channels, hidden_size, width):
        super().__init__(channels, hidden_size, width)
        self.beside = nn.Linear(hidden_size, width)

    def forward(self, inputs, vlm, deep, caches=None):
        outputs = super().forward(inputs, vlm, deep, caches)
        return replaced(outputs, deep=outputs.deep + self.beside(self.adapter(inputs.u)))


class ReadBesideTheLinks(Stacked):
    """Text reads the deep stream, without a skip."""

    def __init__(self, channels, hidden_size, width):
        super().__init__(channels, hidden_size, width)
        self.beside = nn.Linear(width, hidden_size)

    def forward(self, inputs, vlm, deep, caches=None):
        outputs = super().forward(inputs, vlm, deep, caches)
        return replaced(outputs, text=outputs.text + self.beside(outputs.deep))


def tiled(skips=ZeroSkip, direction="both", part=Tiled, vision_input=None):
    return partial(part, word="VVF", skips=skips, direction=direction, vision_input=vision_input)


class StartsRandom(MixtureOfTransformers):
    def __init__(self, channels, hidden_size, width):
        super().__init__(channels, hidden_size, width, random_start=True)


class ImageWeightsActOnText(StartsRandom):
    """Routes the position before each image, and with it text, through the flow's weights."""

    def forward(self, *args):
        def one_early(modules, text, image, is_image):
            return routed(modules, text, image, is_image | is_image.roll(-1, dims=1))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mixture_module, "routed", one_early)
            return super().forward(*args)


class TextWeightsActOnImages(MixtureOfTransformers):
    def forward(self, *args):
        def none(modules, text, image, is_image):
            return routed(modules, text, image, torch.zeros_like(is_image))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mixture_module, "routed", none)
            return super().forward(*args)


class AttendsToTheFuture(MixtureOfTransformers):
    def forward(self, inputs, vlm, deep, caches=None):
        if inputs.mask is None:
            length = inputs.tokens.shape[1]
            inputs = replaced(inputs, mask=torch.ones(len(inputs.tokens), 1, length, length) > 0)
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
    (SkipStartsOpen, "zero_start.text_starts_as_the_vlm"),
    (UnusedSkip, "models.every_parameter_is_trained"),
    (Unfreezes, "models.every_parameter_is_trained"),
    (ShownTwice, "zero_start.vision_starts_as_the_plain_flow"),
    (ReadBesideTheLinks, "zero_start.text_alone_is_the_same"),
    (tiled(Ahead, "vlm_to_flow"), "models.means_see_only_the_past"),
    (tiled(Ahead, "vlm_to_flow"), "models.likelihood_is_exact"),
    (tiled(Ahead, "flow_to_vlm"), "models.text_sees_only_the_past"),
    (tiled(ZeroTimesZero), "zero_start.skips_leave_zero"),
    (
        tiled(part=OpenToUnfinishedImages, vision_input=LatentInput()),
        "models.unfinished_images_are_not_seen",
    ),
    (ImageWeightsActOnText, "zero_start.text_starts_as_the_vlm"),
    (TextWeightsActOnImages, "models.every_parameter_is_trained"),
    (AttendsToTheFuture, "models.means_see_only_the_past"),
]


@pytest.mark.parametrize(("interleaving", "name"), BROKEN)
def test_the_right_law_catches(interleaving, name):
    factory = partial(tiny_pretzel, interleaving)
    (law,) = [law for law in laws_of(factory()) if law.name == name]
    perturbed = not name.startswith("zero_start")
    outcome = try_law(law, Case(factory=factory, perturbed=perturbed))
    assert not outcome.passed
    assert isinstance(outcome.cause, LawBroken)


def test_at_initialisation_a_leak_through_a_skip_is_invisible():
    factory = partial(tiny_pretzel, SkipLooksAhead)
    (law,) = [law for law in laws_of(factory()) if law.name == "models.likelihood_is_exact"]
    assert try_law(law, Case(factory=factory, perturbed=False)).passed
