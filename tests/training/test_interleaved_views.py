"""Documents in any order of text and images, through interleavings that model a part of them."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from test_stages import shrunk
from tiny import fit, images, perturb, tiny_module, tiny_pretzel

from pretzel.__main__ import main
from pretzel.errors import UserError
from pretzel.interleave import Stacked, TextPrefix, Unconditional
from pretzel.sequence.document import Document, DocumentBatch, Image, Text, caption_document

ROOT = Path(__file__).parents[2]
TALK = Document(
    key="talk",
    segments=(
        Text(content="a red circle"), Image(),
        Text(content="what color is the shape?"), Text(content="red", role="target"),
        Text(content="a blue shape"), Image(),
    ),
)  # fmt: skip
TEXT = Document(
    key="text", segments=(Text(content="what color?"), Text(content="red", role="target"))
)
CAPTION = caption_document("a shape", key="caption")
PARTIAL = pytest.mark.parametrize("interleaving", [TextPrefix, Unconditional])


def batch(*documents):
    return DocumentBatch(
        documents=documents, images=images(sum(document.num_images for document in documents))
    )


def perturbed(interleaving, **options):
    model = tiny_pretzel(interleaving, **options)
    perturb(model)
    return model


@PARTIAL
@pytest.mark.parametrize("pack_length", [None, 64])
def test_what_the_view_drops_contributes_nothing(interleaving, pack_length):
    model = perturbed(interleaving)
    model.pack_length = pack_length
    x = torch.randn(4, 4, 48)
    with torch.no_grad():
        found = model.score([TEXT, TALK, CAPTION, TEXT, TALK], torch.cat([x, x[:1]]))
        first = model.score([replace(TALK, segments=TALK.segments[:2])], x[:1])
        second = model.score([CAPTION], x[2:3])
        third = model.score([replace(TALK, segments=TALK.segments[:2])], x[3:4])
    for name in ("log_prob", "z", "u"):
        expected = torch.cat([getattr(output, name) for output in (first, second, third)])
        torch.testing.assert_close(getattr(found, name), expected)
    assert found.token_nll.shape == (0,)


@PARTIAL
def test_images_are_counted_before_the_view(interleaving):
    model = tiny_pretzel(interleaving)
    with pytest.raises(UserError, match="these documents hold 2 images, got the latents of 1"):
        model.score([TALK], torch.randn(1, 4, 48))


@PARTIAL
@pytest.mark.parametrize("documents", [(TEXT,), (TEXT, TEXT)])
def test_a_batch_of_which_nothing_remains_has_no_scores(interleaving, documents):
    model = tiny_pretzel(interleaving)
    output = model.score(documents, torch.zeros(0, 4, 48))
    assert output.log_prob.shape == output.token_nll.shape == (0,)
    assert output.z.shape == output.u.shape == (0, 4, 48)
    packed = model.pack(documents)  # as the analyses ask for it
    assert packed.tokens.numel() == packed.targets.numel() == packed.is_image.numel() == 0


@PARTIAL
def test_dropped_images_of_which_nothing_remains(interleaving):
    class Nothing(interleaving):
        def view(self, document):
            return replace(document, segments=())

    output = tiny_pretzel(Nothing).score([TALK], torch.randn(2, 4, 48))
    assert output.log_prob.shape == (0,)
    assert output.z.shape == (0, 4, 48)


def test_a_document_of_nothing_is_refused_all_the_same():
    nothing = torch.zeros(0, 4, 48)
    for model in (tiny_pretzel(Stacked), tiny_pretzel(TextPrefix)):
        with pytest.raises(UserError, match="document 'k' must have text or an image"):
            model.score([Document(key="k", segments=())], nothing)
        with pytest.raises(UserError, match="at least one document, got none"):
            model.score([], nothing)


def test_an_interleaving_of_ones_own_may_drop_what_follows_the_second_image():
    class TwoImages(Stacked):
        def view(self, document: Document) -> Document:
            ends = [i + 1 for i, s in enumerate(document.segments) if isinstance(s, Image)]
            return replace(document, segments=document.segments[: ends[1] if ends[1:] else None])

    model = perturbed(TwoImages)
    three = replace(TALK, segments=(*TALK.segments, Image()))
    x = torch.randn(4, 4, 48)
    with torch.no_grad():
        found = model.score([three, CAPTION], x)
        expected = model.score([TALK, CAPTION], x[[0, 1, 3]])
    torch.testing.assert_close(found.log_prob, expected.log_prob)
    torch.testing.assert_close(found.token_nll, expected.token_nll)


@PARTIAL
@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
@pytest.mark.parametrize("documents", [(TALK, TEXT, CAPTION), (TEXT, TEXT)])
def test_training_touches_every_parameter(interleaving, documents, tmp_path):
    module = tiny_module(interleaving)
    reached = {}
    module.on_before_optimizer_step = lambda _: reached.update(
        {name: p.grad is not None for name, p in module.named_parameters() if p.requires_grad}
    )
    fit(module, tmp_path, 1, [batch(*documents)])
    assert reached
    assert all(reached.values())


@PARTIAL
def test_likelihoods_are_of_what_is_modelled_with_the_noise_of_its_key(interleaving):
    module = tiny_module(interleaving)
    perturb(module)
    given = batch(TALK, TEXT, CAPTION)
    with torch.no_grad():
        found = module.log_prob(given).log_prob
        talk, caption = (
            module.log_prob(DocumentBatch(documents=(document,), images=given.images[[i]])).log_prob
            for document, i in ((replace(TALK, segments=TALK.segments[:2]), 0), (CAPTION, 2))
        )
    torch.testing.assert_close(found, torch.cat([talk, caption]))
    assert len(module.pixel_log_prob(given)) == 2


@pytest.mark.parametrize("name", ["TextPrefix", "Unconditional"])
def test_the_stage_of_conversations_trains(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arm = {
        "model": {
            "init_args": {
                "weights": None,
                "pretzel": {
                    "init_args": {"interleaving": {"class_path": f"pretzel.interleave.{name}"}}
                },
            }
        }
    }
    (tmp_path / "arm.yaml").write_text(yaml.safe_dump(arm))
    files = [
        ROOT / "ablations" / "base" / "easy_vqa.yaml",
        ROOT / "ablations" / "stages" / "s3.yaml",
        ROOT / "ablations" / "stages" / "conversations.yaml",
        tmp_path / "arm.yaml",
        shrunk("s3", tmp_path),
    ]
    options = [word for file in files for word in ("-c", os.fspath(file))]
    assert main(["fit", *options]) == 0
