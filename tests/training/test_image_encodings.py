"""The encodings of images that a module hands out are those that its model computes."""

from functools import partial

import pytest
import torch
from tiny import images, perturb, tiny_module, tiny_pretzel

from pretzel.interleave import (
    LatentInput,
    MixtureOfTransformers,
    Stacked,
    TextPrefix,
    Tiled,
    Unconditional,
)
from pretzel.media.integers import content_key
from pretzel.model import stream_inputs
from pretzel.sequence.document import Document, Image
from pretzel.training.encodings import image_encodings


@pytest.mark.parametrize("vision_input", [None, LatentInput()])
def test_they_are_what_enters_and_leaves_each_part(vision_input):
    module = tiny_module(partial(Stacked, vision_input=vision_input)).eval()
    perturb(module)
    model, pixels = module.pretzel, images(3)
    found = module.encodings(pixels)
    latents = model.latent.encode(pixels)
    assert torch.equal(found["latents"], latents)
    keys = [content_key(image, torch.uint8) for image in pixels]
    x = latents + model.latent.noise * model.sample_noise(keys, module.seed, "evaluation")
    u = model.shallow(x).z
    torch.testing.assert_close(found["u"], u)
    torch.testing.assert_close(
        found["adapter"], model.interleaving.adapter(u if vision_input is None else x)
    )
    packed = model.pack([Document(key=key, segments=(Image(),)) for key in keys])
    inputs = stream_inputs(packed, u, model.vision_features(u, x))
    states = model.interleaving.run_vlm(inputs, model.vlm, None)
    torch.testing.assert_close(found["y_vlm"], states[packed.is_image].view(3, 4, -1))
    # an image is by itself: neither the batch nor hooks that stayed matter
    again = module.encodings(pixels[1:2])
    for name, value in again.items():
        torch.testing.assert_close(value, found[name][1:2])
    assert not any(part._forward_hooks for part in model.modules())


@pytest.mark.parametrize(
    ("interleaving", "deep", "lacking"),
    [
        (partial(Tiled, word="VF"), 4, set()),
        (MixtureOfTransformers, 0, {"adapter"}),
        (TextPrefix, 1, {"adapter", "y_vlm"}),
        (Unconditional, 1, {"adapter", "y_vlm"}),
    ],
)
def test_what_an_interleaving_does_not_have_is_none(interleaving, deep, lacking):
    model = tiny_pretzel(interleaving, deep=deep)
    found = image_encodings(model, images(2), model.noise(2, "test"))
    assert {name for name, value in found.items() if value is None} == lacking
    assert all(value.shape[:2] == (2, 4) for value in found.values() if value is not None)


def test_texts_are_the_mean_of_the_embeddings_of_their_tokens():
    module = tiny_module()
    vlm = module.pretzel.vlm
    texts = ["a red circle", "a shape"]
    for text, embedding in zip(texts, module.text_embeddings(texts), strict=True):
        tokens = torch.tensor(vlm.encode_text(text))
        torch.testing.assert_close(embedding, vlm.embed(tokens[None])[0].mean(dim=0))


def test_what_comes_back_of_pixels_has_the_noise_of_training():
    module, pixels = tiny_module(noise=0.25), images(40)
    error = module.reconstruct(pixels) - pixels
    assert 0.24 < float(error.std()) < 0.26
