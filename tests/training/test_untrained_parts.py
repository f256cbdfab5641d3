"""Parts that no stage has trained yet start as the stage at hand configures them."""

from functools import partial

import pytest
import torch
from tiny import caption_batch, fit, perturb, tiny_module

from pretzel.errors import NotApplicable, UserError
from pretzel.interleave import (
    GatedSkip,
    MLPAdapter,
    RandomSkip,
    Stacked,
    TextPrefix,
    Unconditional,
)
from pretzel.sampling.learned_denoiser import LearnedDenoiser
from pretzel.training.starting_weights import read_weights

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")

S1 = {"trains": ["shallow", "deep", "interleaving.text_input?"], "text_weight": 0.0}
CAPTIONS = [caption_batch("a red circle", "a shape")]


def seeded(seed, *args, **options):
    torch.manual_seed(seed)
    return tiny_module(*args, **options)


@pytest.fixture
def first(tmp_path):
    """Weights of S1: skips at zero and an adapter, neither of them trained."""
    return exported(seeded(0, **S1), tmp_path / "s1.safetensors")


def exported(module, path):
    perturb(module)
    module.export(path)
    return path


@pytest.mark.parametrize(
    ("interleaving", "fresh"),
    [
        (Stacked, {"adapter", "vlm_skip", "deep_skip"}),
        (partial(Stacked, skips=RandomSkip), {"adapter", "vlm_skip", "deep_skip"}),
        (partial(Stacked, skips=GatedSkip), {"adapter", "vlm_skip", "deep_skip"}),
        (partial(Stacked, adapter=partial(MLPAdapter, width=8)),
         {"adapter", "vlm_skip", "deep_skip"}),
        (partial(Stacked, vlm_skip=False), {"adapter", "deep_skip"}),
        (TextPrefix, set()),
    ],
    ids=["zero", "random", "gated", "adapter", "no skip", "text_prefix"],
)  # fmt: skip
def test_from_s1(interleaving, fresh, first):
    saved = read_weights(first).state
    alone, module = seeded(5, interleaving), seeded(5, interleaving, weights=first)
    for name, value in module.state_dict().items():
        as_configured = name.split(".")[2] in fresh
        expected = alone.state_dict()[name] if as_configured else saved[name]
        assert torch.equal(value, expected), name
        if not as_configured:
            assert not torch.equal(value, alone.state_dict()[name])


def test_of_the_interleaving_a_stage_may_have_parts_that_the_one_before_lacked(tmp_path):
    path = exported(seeded(0, TextPrefix, **S1), tmp_path / "s1.safetensors")
    module, alone = seeded(5, weights=path), seeded(5)
    for name, value in module.state_dict().items():
        kept = name.split(".")[2] in ("adapter", "vlm_skip", "deep_skip")
        assert torch.equal(value, alone.state_dict()[name]) == kept, name


def test_what_has_trained_must_find_its_place(first, tmp_path):
    with pytest.raises(
        UserError,
        match=r"configured architecture, but pretzel\.interleaving\.text_input\.bias is unknown",
    ):
        tiny_module(Unconditional, weights=first)  # nowhere to put the text input
    module = seeded(0, trains=["interleaving.vlm_skip"])
    path = exported(module, tmp_path / "skips.safetensors")
    with pytest.raises(UserError, match=r"gate is missing"):  # not half of a skip
        tiny_module(partial(Stacked, skips=GatedSkip), weights=path)
    path = exported(seeded(0), tmp_path / "all.safetensors")
    assert read_weights(path).untrained == frozenset()
    with pytest.raises(UserError, match=r"gate is missing"):
        tiny_module(partial(Stacked, skips=GatedSkip), weights=path)


@pytest.mark.parametrize("trains", [["shallow.blocks.0", "deep"], ["deep.head"]])
def test_a_part_that_trained_in_part_is_taken_whole(trains, tmp_path):
    module = seeded(0, trains=trains)
    path = exported(module, tmp_path / "part.safetensors")
    started = seeded(5, weights=path)
    for name, value in module.state_dict().items():
        begun = name.split(".")[1] in {t.split(".")[0] for t in trains}
        if begun and not (trains == ["deep.head"] and "head" not in name):
            assert torch.equal(started.state_dict()[name], value), name


def test_links_that_are_on_must_train(tmp_path, first):
    random = partial(Stacked, skips=RandomSkip)
    with pytest.raises(
        UserError, match=r"trains must name interleaving\.vlm_skip, which is on from"
    ):
        fit(tiny_module(random, **S1), tmp_path, 1, CAPTIONS)
    path = exported(seeded(0, random), tmp_path / "trained.safetensors")
    later = tiny_module(random, weights=path, trains=["interleaving.adapter"])
    fit(later, tmp_path, 1, CAPTIONS)  # they have trained before
    resumed = tiny_module(random, trains=["interleaving.adapter"])
    later.trainer.save_checkpoint(tmp_path / "x.ckpt")
    resumed.on_load_checkpoint(torch.load(tmp_path / "x.ckpt", weights_only=True))
    resumed._check_off()


def test_weights_are_used_as_they_were_trained(tmp_path):
    module = seeded(0, partial(Stacked, adapter=partial(MLPAdapter, width=8)), **S1)
    path = exported(module, tmp_path / "s1.safetensors")
    other = seeded(5, partial(Stacked, adapter=partial(MLPAdapter, width=8)))
    other.load_weights(path)
    for name, value in module.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
    other.export(tmp_path / "again.safetensors")


def test_a_denoiser_that_no_stage_has_trained_is_not_drawn_with(tmp_path):
    denoiser = partial(LearnedDenoiser, width=8)
    path = exported(seeded(0, denoiser=denoiser(), **S1), tmp_path / "s1.safetensors")
    for begin in ("start", "load"):
        module = seeded(5, denoiser=denoiser(), weights=path if begin == "start" else None)
        if begin == "load":
            module.load_weights(path)
        with pytest.raises(UserError, match="has no trained weights"):
            module.check_denoiser()


def test_stages_add_up(first, tmp_path):
    untrained = read_weights(first).untrained
    assert {name.split(".")[2] for name in untrained} == {"adapter", "vlm_skip", "deep_skip"}
    second = tiny_module(weights=first, trains=["interleaving.adapter"])
    path = exported(second, tmp_path / "s2.safetensors")
    parts = {name.split(".")[2] for name in read_weights(path).untrained}
    assert parts == {"vlm_skip", "deep_skip"}  # deep has trained, in the stage before
    trainer = fit(
        tiny_module(weights=first, trains=["interleaving.adapter"]), tmp_path, 1, CAPTIONS
    )
    trainer.save_checkpoint(tmp_path / "s2.ckpt")
    assert read_weights(tmp_path / "s2.ckpt").untrained == read_weights(path).untrained
    # resumed, from nothing but the checkpoint
    resumed = tiny_module(trains=["interleaving.adapter"])
    resumed.on_load_checkpoint(torch.load(tmp_path / "s2.ckpt", weights_only=True))
    resumed.export(tmp_path / "resumed.safetensors")
    assert read_weights(tmp_path / "resumed.safetensors").untrained == read_weights(path).untrained


def test_a_model_without_what_trains_does_not_have_the_stage():
    with pytest.raises(NotApplicable, match="the model has none of these"):
        tiny_module(TextPrefix, trains=["interleaving.adapter?"])
