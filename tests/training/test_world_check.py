"""A model that is trained on images or texts that its frozen parts do not know says so, once."""

import warnings
from itertools import islice

import pytest
import torch
from tiny import caption_batch, fit, images, tiny_module

from datamodules import EasyVQA, FluentEmoji
from pretzel.interleave import Stacked, TextPrefix, Unconditional
from pretzel.latent import FAE, Autoencoder, Pixels
from pretzel.sequence.document import Document, DocumentBatch, Image, Text, caption_document
from pretzel.training import world_check
from pretzel.training.world_check import NUM_SAMPLES, LatentMoments, WordCounts
from pretzel.vlm.tiny import TinyVLM

OURS = ("latents", "TinyVLM", "TextPrefix")


@pytest.mark.parametrize(
    "make", [lambda: Autoencoder(2, 0.3), pytest.param(lambda: FAE(0.3), marks=pytest.mark.slow)]
)
def test_latents_of_other_images_are_told_from_those_of_its_own(make):
    space, said = make(), []
    for source in (EasyVQA(), FluentEmoji()):
        pictures = torch.stack([s.image for s in islice(source.samples("train", 64), NUM_SAMPLES)])
        moments = LatentMoments()
        for batch in pictures.split(48):
            moments.add(space.encode(batch))
        said.append(moments.warning(space))
    name = type(space).__name__
    assert said[0] == ""
    assert "latents of the first 128 images have a standard deviation of 1." in said[1]
    assert f"{name} was trained on other images than these" in said[1]
    assert space.trained_by in said[1]


def test_texts_that_a_tokenizer_spells_are_told_from_its_own():
    vlm, said = TinyVLM(), []
    for texts in (
        [text for s in EasyVQA().texts("val") for text in (s.caption, *sum(s.questions, ()))],
        [sample.caption for sample in FluentEmoji().texts("val")],
        ["一个红色的圆圈", "42 x 17", "ox"],
    ):
        counts = WordCounts(encode=vlm.encode_text, decode=vlm.decode_text)
        counts.add([caption_document(text) for text in texts])
        counts.add([caption_document("unsichtbar", dropped=True)])
        said.append(counts.warning("TinyVLM", "train it"))
    assert said[0] == ""
    assert "TinyVLM does not know 21% of the words of the first 163" in said[1]
    assert "100% of the words of the first 4 documents" in said[2]
    assert said[2].endswith("'一个红色的圆圈' among them: train it")


def test_a_fit_says_it_once_and_trains_as_it_would_without(tmp_path, monkeypatch):
    batch = [caption_batch("ein roter Kreis", "zwei blaue Dreiecke")]

    def trained(steps, interleaving=Stacked, **kwargs):
        torch.manual_seed(0)
        module = tiny_module(interleaving)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer = fit(module, tmp_path, steps, given=batch, **kwargs)
        first_words = [str(one.message).split(" ")[0] for one in caught]
        said = [word for word in first_words if word in OURS]
        return module.state_dict(), said, trainer

    silent, said, _ = trained(3)
    assert said == []
    monkeypatch.setattr(world_check, "NUM_SAMPLES", 3)
    monkeypatch.setattr(Pixels, "trained_by", "some.yaml")
    weights, said, trainer = trained(3)
    assert said == ["latents", "TinyVLM"]
    assert all(torch.equal(weights[name], value) for name, value in silent.items())
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    assert trained(5, ckpt_path=tmp_path / "x.ckpt")[1] == []
    assert trained(2, Unconditional)[1] == ["latents"]  # it reads no text
    edit = Document(key="e", segments=(Image(), Text(content="blue"), Image()))
    batch = [DocumentBatch(documents=(edit,) * 3, images=images(6))]
    assert trained(1, TextPrefix)[1] == ["latents", "TextPrefix"]
