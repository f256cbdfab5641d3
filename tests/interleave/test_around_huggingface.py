"""Tiled and MixtureOfTransformers inside the layers of a Hugging Face model with norms of keys."""

import copy
from functools import partial

import pytest
import torch

from pretzel.flow import AFBlock, AffineSoftplus, DeepStream, ExplicitSplit, Raster
from pretzel.interleave.mixture import MixtureOfTransformers
from pretzel.interleave.tiled import Tiled
from pretzel.latent import Pixels
from pretzel.model import Pretzel
from pretzel.testing import Case
from pretzel.testing.laws import generation
from pretzel.testing.laws.models import latents, means_see_only_the_past
from pretzel.testing.laws.zero_start import skips_leave_zero
from pretzel.testing.tiny_model import batch, transformer
from pretzel.vlm.huggingface import HuggingFaceVLM

CONFIG = {
    "model_type": "qwen3", "head_dim": 8, "vocab_size": 64, "hidden_size": 32,
    "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "initializer_range": 0.2,
}  # fmt: skip
TRANSFORMER = transformer(width=16, head_dim=8)
PARTS = [
    pytest.param(MixtureOfTransformers, 0, id="frozen"),
    pytest.param(partial(MixtureOfTransformers, trains_text=True), 0, id="trained"),
    pytest.param(partial(Tiled, word="VVF"), 2, id="tiled"),
]


def pretzel(interleaving, layers, **options):
    vlm = HuggingFaceVLM(config=CONFIG, **options)
    vlm.encode_text = lambda text: [3 + ord(letter) % 60 for letter in text[::3]]
    return Pretzel(
        latent=Pixels(image_size=4, patch_size=2, noise=0.1),
        split=ExplicitSplit(shallow=[1], deep=layers),
        permutations=[Raster()],
        shallow=partial(AFBlock, transform=AffineSoftplus(), conditioner=TRANSFORMER),
        deep=partial(DeepStream, transform=AffineSoftplus(), conditioner=TRANSFORMER),
        vlm=vlm,
        interleaving=interleaving,
    )


def case(interleaving, layers, *, perturbed=True, **options):
    return Case(factory=lambda: pretzel(interleaving, layers, **options), perturbed=perturbed)


@pytest.mark.parametrize(("interleaving", "layers"), PARTS)
def test_causality_is_exact_and_caches_hold_to_the_rounding_of_float32(
    interleaving, layers, monkeypatch
):
    monkeypatch.setattr(generation, "FP64", 1e-4)
    trial = case(interleaving, layers)
    assert means_see_only_the_past(trial).error == 0
    assert generation.chunks_equal_the_whole(trial).error < 1e-4
    skips_leave_zero(case(interleaving, layers, perturbed=False))


def gradients(model):
    given = batch(model, torch.float32)
    output = model(given, latents(model, len(given.images)).float())
    loss = output.token_nll.mean() - output.log_prob.mean()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return dict(zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True))


@pytest.mark.parametrize(("interleaving", "layers"), PARTS)
def test_layers_that_run_again_in_the_backward_pass_are_routed_and_joined_once(
    interleaving, layers
):
    options = ({}, {"gradient_checkpointing": True})
    plain, again = (
        gradients(case(interleaving, layers, **o).build(dtype=torch.float32)) for o in options
    )
    for name, expected in plain.items():
        torch.testing.assert_close(again[name], expected, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize(("interleaving", "layers"), PARTS)
def test_a_model_in_half_precision_trains_weights_in_single(interleaving, layers):
    model = pretzel(interleaving, layers, dtype="bfloat16")
    before = copy.deepcopy(model.vlm.state_dict())
    actual = gradients(model)
    assert all(g.isfinite().all() and g.dtype == torch.float32 for g in actual.values())
    assert any(g.any() for name, g in actual.items() if name.startswith("interleaving."))
    for name, value in model.vlm.state_dict().items():
        assert value.dtype == torch.bfloat16
        assert torch.equal(value, before[name])
