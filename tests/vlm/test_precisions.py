"""A vision-language model of another precision than the flow around it."""

import contextlib
from functools import partial

import pytest
import tiny
import torch
from huggingface_tiny import save_tokenizer, tiny_vlm

from pretzel.flow import AFBlock, AffineSoftplus, DeepStream, ExplicitSplit, Flip, Raster
from pretzel.generation.latents import generate_latents
from pretzel.generation.state import GenerationState
from pretzel.generation.writing import Writing, write_tokens
from pretzel.interleave import (
    LatentInput,
    MixtureOfTransformers,
    NoAdapter,
    Stacked,
    TextPrefix,
    Tiled,
    TowerInput,
    Unconditional,
)
from pretzel.latent import Pixels
from pretzel.model import Pretzel
from pretzel.sampling.guidance import GaussianMixing, NoGuidance
from pretzel.sampling.samplers import Jacobi
from pretzel.sequence.document import Document, Image, Text

BF16 = torch.bfloat16
PARTS = {
    "Stacked": (Stacked, 1),
    "Stacked, raw": (partial(Stacked, whiten=False), 1),
    "Stacked, no skips": (partial(Stacked, vlm_skip=False, deep_skip=False), 1),
    "Stacked, latents": (partial(Stacked, vision_input=LatentInput()), 1),
    "Stacked, tower": (partial(Stacked, vision_input=TowerInput(), adapter=NoAdapter), 1),
    "Tiled": (partial(Tiled, word="VVVF"), 1),
    "Tiled, both ways": (partial(Tiled, word="VF"), 3),
    "Tiled, raw, tower": (partial(Tiled, word="VVVF", whiten=False, vision_input=TowerInput()), 1),
    "MixtureOfTransformers": (MixtureOfTransformers, 0),
    "MixtureOfTransformers, text": (partial(MixtureOfTransformers, trains_text=True), 0),
    "TextPrefix": (TextPrefix, 1),
    "TextPrefix, raw": (partial(TextPrefix, whiten=False), 1),
    "Unconditional": (Unconditional, 1),
}
DOCUMENT = Document(
    key="",
    segments=(
        Text(content="a red circle"), Image(), Text(content="what is it"),
        Text(content="circle", role="target"),
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return str(folder)


def pretzel(tokenizer, part, dtype, family="smolvlm", *, is_cast=False):
    """Build a model, perturbed alike whatever its precision."""
    interleaving, layers = PARTS[part]
    vlm = tiny_vlm(
        family, tokenizer=tokenizer, end_of_text="<|im_end|>", pad="<|endoftext|>", dtype=dtype
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Pretzel(
            latent=Pixels(image_size=8, patch_size=4, noise=0.05),
            split=ExplicitSplit(shallow=[1, 1], deep=layers),
            permutations=[Raster(), Flip()],
            shallow=partial(AFBlock, transform=AffineSoftplus(), conditioner=tiny.TRANSFORMER),
            deep=partial(DeepStream, transform=AffineSoftplus(), conditioner=tiny.TRANSFORMER),
            vlm=vlm,
            interleaving=interleaving,
        )
    tiny.perturb(model, scale=0.05)
    return model.to(BF16) if is_cast else model


def generate(model):
    z = torch.randn(2, 4, 48, generator=torch.Generator().manual_seed(1)).to(
        model.device, model.dtype
    )
    with torch.inference_mode():
        session = GenerationState(model, 2, 60)
        session.read_text(["a red circle", "a"])
        generate_latents(
            session, z, GaussianMixing(weight=1.0), Jacobi(block_size=2, tolerance=1e-3)
        )
        if model.interleaving.answers:
            session.read_text(["what", "is it"])
            list(write_tokens(session, 2, Writing(temperature=0.7)))
            generate_latents(session, z, NoGuidance())


# Which of both streams is short; autocast shortens what it shortens.
KINDS = {
    "vlm": ("bfloat16", False, False),
    "flow": ("float32", True, False),
    "both": ("bfloat16", True, False),
    "autocast": ("float32", False, True),
    "autocast, vlm": ("bfloat16", False, True),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", PARTS)
def test_streams_of_different_precision_score_learn_and_generate(part, kind, tokenizer):
    dtype, is_cast, is_auto = KINDS[kind]
    exact = pretzel(tokenizer, part, "float32")
    model = pretzel(tokenizer, part, dtype, is_cast=is_cast)
    x = torch.randn(1, 4, 48, generator=torch.Generator().manual_seed(0))
    context = torch.autocast("cpu", BF16) if is_auto else contextlib.nullcontext()
    with context:
        output = model.score([DOCUMENT], x.to(model.device, model.dtype))
        (output.log_prob.sum() + output.token_nll.sum()).backward()
        generate(model)
    with torch.no_grad():
        expected = exact.score([DOCUMENT], x)
    assert output.token_nll.dtype == output.log_prob.dtype == torch.float32
    torch.testing.assert_close(output.log_prob, expected.log_prob, rtol=0.05, atol=0)
    torch.testing.assert_close(output.token_nll, expected.token_nll, rtol=0.1, atol=0.1)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("part", ["Stacked", "Stacked, no skips", "TextPrefix, raw", "Tiled"])
@pytest.mark.parametrize("kind", ["vlm", "flow"])
def test_tokens_that_the_vocabulary_lacks(part, kind, tokenizer):
    dtype, is_cast, _ = KINDS[kind]
    model = pretzel(tokenizer, part, dtype, "llama", is_cast=is_cast)
    assert model.interleaving.new_tokens is not None
    output = model.score([DOCUMENT], torch.randn(1, 4, 48).to(model.device, model.dtype))
    (output.log_prob.sum() + output.token_nll.sum()).backward()
    generate(model)


@pytest.mark.parametrize("part", ["Stacked", "Tiled", "MixtureOfTransformers", "TextPrefix"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_vlm_is_fed_and_read_in_its_own_precision(part, dtype, tokenizer):
    model = pretzel(tokenizer, part, dtype, is_cast=dtype == "float32")
    own = getattr(torch, dtype)
    seen = []
    model.vlm.register_forward_hook(
        lambda vlm, args, y: seen.append((args[0].dtype, y.dtype)), with_kwargs=False
    )
    model.score([DOCUMENT], torch.randn(1, 4, 48).to(model.device, model.dtype))
    assert seen == [(own, own)]


def test_text_of_a_long_vlm_is_not_shortened_by_the_flow(tokenizer):
    exact = pretzel(tokenizer, "Stacked, no skips", "float32")
    model = pretzel(tokenizer, "Stacked, no skips", "float32", is_cast=True)
    text = Document(key="", segments=DOCUMENT.segments[2:])
    nothing = torch.zeros(0, 4, 48)
    actual = model.score([text], nothing.to(BF16)).token_nll
    torch.testing.assert_close(actual, exact.score([text], nothing).token_nll)


@pytest.mark.parametrize("family", ["smolvlm", "qwen2_5_vl"])
@pytest.mark.parametrize("size", [16, 21])
def test_images_are_prepared_in_float32_at_least(family, size):
    vlm = tiny_vlm(family)

    def prepared(images):
        return vlm.family.prepare(vlm.model.config, images, vlm.preprocessing)

    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    images = images.to(BF16)
    actual = prepared(images)
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, prepared(images.float()))
    assert prepared(images.double()).dtype == torch.float64
