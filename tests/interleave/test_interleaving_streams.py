"""Interleavings beyond their laws: initialisation, several images, the null branch."""

import pytest
import torch

from pretzel.interleave import Stacked, TextPrefix, Unconditional
from pretzel.sequence.document import Document, Image, Text, caption_document, question_document
from pretzel.testing import Case, perturb, tiny_pretzel
from pretzel.testing.gradients import jacobian
from pretzel.testing.laws.models import latents, parameters_of_u, run_streams
from pretzel.testing.tiny_model import PAIRS, PROMPTS


def built(interleaving, *, perturbed=True, dtype=torch.float64):
    return Case(factory=lambda: tiny_pretzel(interleaving), perturbed=perturbed).build(dtype=dtype)


def log_prob(model, caption, *, dropped=False):
    with torch.no_grad():
        document = caption_document(caption, dropped=dropped)
        return model.score([document], latents(model, 1)).log_prob


def test_at_initialisation_text_is_the_vlms_own_bit_for_bit_behind_an_image_too():
    model = built(Stacked, perturbed=False, dtype=torch.float32)
    document = Document(key="", segments=(Text(content="look"), Image(), Text(content="a circle?")))
    packed, u = model.pack([document]), latents(model, 1).float()
    with torch.no_grad():
        embeddings = model.vlm.embed(packed.tokens)
        embeddings[packed.is_image] = model.interleaving.adapter(u[0])
        own = model.vlm.logits(model.vlm(embeddings, packed.index))
        text = model.vlm.logits(run_streams(model, [document], u).text)
    assert torch.equal(text, own)


def test_at_initialisation_vision_is_the_plain_flow_with_a_text_prefix():
    stacked, prefix = built(Stacked, perturbed=False), built(TextPrefix, perturbed=False)
    for part in (stacked.shallow, stacked.deep, stacked.interleaving.text_input):
        perturb(part)  # all but the skips: a flow that does something
    prefix.shallow.load_state_dict(stacked.shallow.state_dict())
    prefix.deep.load_state_dict(stacked.deep.state_dict())
    prefix.interleaving.text_input.load_state_dict(stacked.interleaving.text_input.state_dict())
    documents, x = [caption_document(prompt) for prompt in PROMPTS], latents(stacked, 3)
    with torch.no_grad():
        first, second = stacked.score(documents, x), prefix.score(documents, x)
    torch.testing.assert_close(first.log_prob, second.log_prob, rtol=0, atol=1e-10)
    # and it is no longer once the skip has moved
    perturb(stacked.interleaving.vlm_skip)
    with torch.no_grad():
        moved = stacked.score(documents, x).log_prob
    assert ((moved - first.log_prob).abs() > 1e-6).all()


@pytest.mark.parametrize("interleaving", [Stacked, TextPrefix])
def test_captions_condition_and_dropped_ones_are_not_attended(interleaving):
    model = built(interleaving)
    red, blue = log_prob(model, "a red circle"), log_prob(model, "a blue circle")
    assert (red - blue).abs() > 1e-6
    red, blue = (log_prob(model, f"a {color} circle", dropped=True) for color in ("red", "blue"))
    assert torch.equal(red, blue)
    # rotary positions are relative, so that a place kept free changes nothing either
    torch.testing.assert_close(log_prob(model, "a", dropped=True), red, rtol=0, atol=1e-10)


def test_unconditional_ignores_text_and_every_image_but_the_first():
    model = built(Unconditional)
    assert torch.equal(log_prob(model, "a red circle"), log_prob(model, "what is it?"))
    viewed = model.interleaving.view(question_document(PAIRS))
    assert viewed.segments == (Image(),)


def test_text_prefix_models_nothing_behind_the_first_image():
    model = built(TextPrefix)
    document = Document(key="k", segments=(Text(content="a"), Image(), Text(content="b"), Image()))
    assert model.interleaving.view(document).segments == document.segments[:2]
    text = Document(key="k", segments=(Text(content="a"),))
    assert model.interleaving.view(text).segments == ()


def test_stacked_sees_earlier_images_and_text_but_no_later_ones():
    model = built(Stacked)
    document = Document(
        key="", segments=(Image(), Text(content="then", role="target"), Image(), Text(content="x"))
    )
    u = latents(model, 2, key="u").flatten(0, 1)  # both images, 8 positions

    def combined(rows):
        b = len(rows)
        theta = parameters_of_u(model, [document] * b, rows.unflatten(1, (2, 4)).flatten(0, 1))
        return theta.sum(-1).view(b, 8, 1)

    full = jacobian(combined, u)[:, 0].abs().sum(-1)
    assert (full.triu() == 0).all()
    assert (full + torch.ones(8, 8).triu() > 0).all()


def test_text_behind_an_image_sees_it_through_both_skips():
    model = built(Stacked)
    document = question_document(PAIRS)
    u = latents(model, 1, key="u")
    for part in ("adapter", "deep_skip"):
        cut = built(Stacked)
        for parameter in getattr(cut.interleaving, part).parameters():
            parameter.data.zero_()
        with torch.no_grad():
            change = (run_streams(cut, [document], u).text - run_streams(cut, [document], -u).text)[
                0, -1
            ]
        assert change.abs().max() > 1e-6, part
    assert model.interleaving.answers


def test_detaching_stops_the_vlms_gradient_alone():
    document = question_document(PAIRS)
    gradients = {}
    for detach in (False, True):
        model = Case(
            factory=lambda detach=detach: tiny_pretzel(
                lambda c, h, w: Stacked(c, h, w, deep_skip=False, detach_u=detach)
            ),
            perturbed=True,
        ).build()
        nll = model.score([document], latents(model, 1)).token_nll.sum()
        shallow = list(model.shallow.parameters())
        actual = torch.autograd.grad(nll, shallow, allow_unused=True)
        gradients[detach] = sum(float(g.abs().sum()) for g in actual if g is not None)
    assert gradients[False] > 0
    assert gradients[True] == 0
