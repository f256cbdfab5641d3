"""Vision inputs, adapters, tokens that the VLM lacks, and its own counting."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from tiny import perturb, tiny_pretzel

from datamodules import Captions, EasyVQA, WebDatasetDataModule
from pretzel.errors import UserError
from pretzel.interleave import (
    FlowInput,
    GatedSkip,
    LatentInput,
    LinearAdapter,
    MLPAdapter,
    NoAdapter,
    RandomSkip,
    Stacked,
    TowerInput,
    ZeroSkip,
)
from pretzel.latent import Pixels
from pretzel.sequence.document import Document, Image, Text, question_document
from pretzel.sequence.packer import Packer
from pretzel.vlm.tiny import TinyVLM


@pytest.mark.parametrize(
    "make", [LinearAdapter, MLPAdapter, partial(MLPAdapter, width=32, num_hidden=2)]
)
def test_an_adapter_starts_as_large_as_the_text(make):
    vlm = TinyVLM()
    adapter = make(6, vlm.hidden_size)
    adapter.start_from(vlm)
    actual = adapter(torch.randn(4096, 6)).square().mean().sqrt()
    words = vlm.embed(torch.arange(vlm.vocab_size)[None]).square().mean().sqrt()
    torch.testing.assert_close(actual, words, rtol=0.05, atol=0)


@pytest.mark.parametrize("adapter", [LinearAdapter, MLPAdapter])
@pytest.mark.parametrize("vision_input", [FlowInput, LatentInput, TowerInput])
def test_real_images_start_about_as_large_as_the_text(adapter, vision_input):
    vlm = TinyVLM()
    latent = Pixels(image_size=32, patch_size=4, noise=0.05)
    data = WebDatasetDataModule(
        source=EasyVQA(), recipe=Captions(), image_size=32, batch_size=1, steps_per_epoch=1
    )
    x = latent.encode(torch.stack([s.image for s in data.evaluation_samples("test", 32)]))
    seen = vision_input().features(x, x, latent, vlm)  # the shallow flow starts as the identity
    parts = [adapter(seen.shape[-1], vlm.hidden_size) for _ in range(16)]
    with torch.no_grad():
        for part in parts:
            part.start_from(vlm)
        sizes = [float(part(seen).square().mean().sqrt()) for part in parts]
    assert 0.5 < sum(sizes) / len(sizes) / vlm.text_scale() < 1.5


def test_no_adapter_needs_equal_widths():
    assert torch.equal(NoAdapter(4, 4)(torch.ones(2, 4)), torch.ones(2, 4))
    with pytest.raises(UserError, match=r"as wide as the embeddings .* 8, got 4"):
        NoAdapter(4, 8)


def test_links_start_as_they_say():
    target, source = torch.randn(2, 3, 5), torch.randn(2, 3, 4)
    for make in (ZeroSkip, GatedSkip, RandomSkip):
        skip = make(4, 5)
        assert torch.equal(skip(target, source), target) == skip.starts_at_zero
    where = torch.tensor([[True, False, True], [False, False, False]])
    out = RandomSkip(4, 5)(target, source, where)
    assert torch.equal(out[~where], target[~where])
    assert not torch.equal(out[where], target[where])
    with pytest.raises(UserError, match="scale must be positive and finite, got 0"):
        RandomSkip(4, 5, scale=0.0)


@pytest.mark.parametrize("make", [ZeroSkip, GatedSkip])
def test_one_factor_alone_of_a_link_is_zero(make):
    skip = make(4, 5)
    skip(torch.zeros(2, 3, 5), torch.randn(2, 3, 4)).square().sum().backward()
    skip(torch.zeros(2, 3, 5), torch.randn(2, 3, 4)).sum().backward()
    assert any(p.grad.any() for p in skip.parameters())


class Ramp(TinyVLM):
    """Eyes that see the number of the row, and that of the column."""

    def encode_images(self, images):
        place = torch.cartesian_prod(torch.arange(8.0), torch.arange(8.0))
        return place.expand(len(images), -1, -1), (8, 8)


def test_the_tower_sees_the_decoded_latents():
    vlm, images = TinyVLM(), torch.rand(2, 3, 32, 32) * 2 - 1
    latent = Pixels(image_size=32, patch_size=4, noise=0.05)
    x = latent.encode(images)
    actual = TowerInput().features(torch.zeros_like(x), x, latent, vlm)
    torch.testing.assert_close(actual, vlm.encode_images(images)[0], rtol=0, atol=1e-5)


def test_a_tower_is_asked_for_before_anything_is_trained():
    class Blind(TinyVLM):
        has_tower = False

    latent = Pixels(image_size=32, patch_size=4, noise=0.05)
    with pytest.raises(UserError, match="needs a VLM with a tower, got Blind"):
        TowerInput().check(latent, Blind())
    none = torch.zeros(0, 64, 48)
    assert TowerInput().features(none, none, latent, TinyVLM()).shape[0] == 0


def test_features_on_another_grid_are_resampled_in_raster_order():
    coarse = Pixels(image_size=32, patch_size=8, noise=0.05)
    x = torch.zeros(1, 16, coarse.channels)
    actual = TowerInput().features(x, x, coarse, Ramp()).view(4, 4, 2)
    inside = actual[1:3, 1:3]
    torch.testing.assert_close(inside[..., 0], torch.tensor([[2.5, 2.5], [4.5, 4.5]]))
    torch.testing.assert_close(inside[..., 1], torch.tensor([[2.5, 4.5], [2.5, 4.5]]))


class Speechless(TinyVLM):
    """The tiny model as if its vocabulary had no image tokens."""

    def __init__(self):
        super().__init__()
        self.special = replace(
            self.special, begin_of_image=self.vocab_size, end_of_image=self.vocab_size + 1
        )


def test_tokens_that_the_vocabulary_lacks_are_learned():
    vlm = Speechless()
    assert vlm.num_new_tokens == 2
    interleaving = Stacked(4, vlm.hidden_size, 16)
    interleaving.start_from(vlm)
    new = interleaving.new_tokens
    tokens = torch.tensor([[5, 512, 7, 513]])
    embedded = interleaving.embed(tokens, vlm)
    assert torch.equal(embedded[0, [1, 3]], new.embedding)
    assert torch.equal(embedded[:, [0, 2]], vlm.embed(tokens[:, [0, 2]]))
    states = torch.randn(3, vlm.hidden_size)
    logits = interleaving.logits(states, vlm)
    assert torch.equal(logits[:, :512], vlm.logits(states))
    assert torch.equal(logits[:, 512:], torch.zeros(3, 2))
    known = Stacked(4, vlm.hidden_size, 16)
    known.start_from(TinyVLM())
    assert known.new_tokens is None


def test_an_index_counts_over_an_image_as_the_vlm_does():
    special = TinyVLM().special
    document = Document(key="", segments=(Text(content="ab"), Image(), Text(content="c")))
    encode = lambda text: [10 + ord(c) for c in text]  # noqa: E731
    raster = Packer(encode, special, (2, 3))([document])
    assert raster.index[0].tolist() == list(range(11))
    compact = Packer(encode, special, (2, 3), ([0] * 6, 3))([document])
    assert compact.index[0].tolist() == [0, 1, 2, *[3] * 6, 6, 7]
    assert torch.equal(compact.positions, raster.positions)


def test_questions_are_answered_whatever_is_shown():
    model = tiny_pretzel(partial(Stacked, vision_input=LatentInput()))
    perturb(model)
    x = torch.randn(1, 4, 48)
    scores = model.score([question_document([("what color is the shape?", "red")])], x)
    assert len(scores.token_nll)
    other = model.score([question_document([("what color is the shape?", "red")])], x + 0.1)
    assert not torch.equal(scores.token_nll, other.token_nll)
