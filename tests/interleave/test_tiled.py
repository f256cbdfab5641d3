"""Tiled: the word over the layers, which skips there are, and what they leave alone at zero."""

from functools import partial

import pytest
import torch

from pretzel.errors import UserError
from pretzel.interleave import LatentInput, ZeroSkip
from pretzel.interleave.residual import ResidualReading, fit_readings
from pretzel.interleave.tiled import Tiled
from pretzel.interleave.tiling import flow_layers_after
from pretzel.model import stream_inputs
from pretzel.sequence.document import Document, Image, Text, caption_document
from pretzel.testing import Case, perturb, tiny_pretzel
from pretzel.testing.laws.models import latents, run_streams
from pretzel.vlm.tiny import TinyVLM

DOCUMENT = Document(
    key="", segments=(Text(content="look"), Image(), Text(content="a circle?"), Image())
)


def built(layers=2, *, perturbed=True, **options):
    interleaving = partial(Tiled, **{"word": "VVF", **options})
    return Case(
        factory=lambda: tiny_pretzel(interleaving, deep_layers=layers), perturbed=perturbed
    ).build()


@pytest.mark.parametrize(
    ("word", "num_vlm_layers", "expected"),
    [
        ("VVF", 4, (0, 1, 0, 1)),
        ("VF", 3, (1, 1, 1)),
        ("VFFV", 4, (2, 0, 2, 0)),
        ("VVVVFFF", 4, (0, 0, 0, 3)),
    ],
)
def test_a_word_says_how_many_layers_of_the_flow_follow_each_of_the_vlm(
    word, num_vlm_layers, expected
):
    assert flow_layers_after(word, num_vlm_layers) == expected


@pytest.mark.parametrize("word", ["", "V", "F", "VXF", "vvf", "FVV"])
def test_what_is_no_word_is_refused(word):
    with pytest.raises(UserError, match=r"^word must .*got "):
        Tiled(4, 8, 16, word=word)


def test_words_that_do_not_use_up_both_streams_are_refused_by_the_counts():
    with pytest.raises(UserError, match=r"takes 3 layers .* its 4; .* fit: \[1, 2, 4\]"):
        built(word="VVVF")
    for layers, word in ((3, "VVVVFFF"), (4, "VF")):
        actual = f"must find 2 .* got {layers}; give it 2.*'{word}'"
        with pytest.raises(UserError, match=actual):
            built(layers=layers)


@pytest.mark.parametrize(
    ("options", "into_flow", "into_vlm", "last"),
    [
        ({}, ["1", "3"], ["1"], True),
        ({"direction": "vlm_to_flow"}, ["1", "3"], [], False),
        ({"direction": "flow_to_vlm"}, [], ["1"], True),
        ({"vision_input": LatentInput()}, ["3"], ["1"], True),
    ],
)
def test_there_is_a_link_at_each_border_in_each_direction(options, into_flow, into_vlm, last):
    interleaving = built(**options).interleaving
    assert list(interleaving.vlm_links) == into_flow
    assert list(interleaving.flow_links) == into_vlm
    assert (interleaving.last is not None) == last


def test_layers_run_in_the_order_of_the_word():
    model, ran = built(word="VFFV", layers=4), []
    for name, layers in (
        ("V", model.vlm.decoder_layers()),
        ("F", model.deep.conditioner.layers),
    ):
        for layer in layers:
            layer.register_forward_hook(lambda *args, name=name: ran.append(name))
    run_streams(model, [DOCUMENT], latents(model, 2))
    assert "".join(ran) == "VFFVVFFV"


def test_at_initialisation_vision_is_the_plain_flow_behind_a_text_prefix():
    model = built(perturbed=False)
    for part in (model.deep, model.interleaving.text_input, model.interleaving.adapter):
        perturb(part)
    prefix = []
    model.interleaving.text_input.register_forward_hook(lambda *args: prefix.append(args[-1]))
    packed, u = model.pack([DOCUMENT]), latents(model, 2, key="u")
    inputs = stream_inputs(packed, u)
    with torch.no_grad():
        actual = run_streams(model, [DOCUMENT], u).deep
        at_image = model.deep.embed(inputs.u, inputs.positions)
        plain = torch.where(inputs.is_image[..., None], at_image, prefix[0])
        expected = model.deep(plain, inputs.positions)
    assert len(prefix) == 1
    assert torch.equal(actual, expected)


@pytest.mark.parametrize(("moved", "part"), [("vlm_links", "deep"), ("flow_links", "text")])
def test_each_link_by_itself_moves_the_stream_it_leads_into(moved, part):
    model = built(perturbed=False)
    perturb(model.deep)
    u = latents(model, 2, key="u")
    with torch.no_grad():
        before = run_streams(model, [DOCUMENT], u)
        for skip in getattr(model.interleaving, moved).values():
            perturb(skip)
            after = run_streams(model, [DOCUMENT], u)
            assert not torch.equal(getattr(after, part), getattr(before, part))
            torch.nn.init.zeros_(skip.linear.weight)


@pytest.mark.parametrize("direction", ["vlm_to_flow", "flow_to_vlm"])
def test_nothing_flows_against_the_direction(direction):
    model = built(direction=direction, perturbed=False)
    perturb(model.interleaving)
    u, documents = latents(model, 1, key="u"), [caption_document("a red circle")]
    with torch.no_grad():
        before = run_streams(model, documents, u)
        if direction == "vlm_to_flow":
            perturb(model.deep)
            assert torch.equal(run_streams(model, documents, u).text, before.text)
        else:
            perturb(model.interleaving.adapter)
            is_image = model.pack(documents).is_image
            after = run_streams(model, documents, u).deep
            assert torch.equal(after[is_image], before.deep[is_image])


def test_what_the_flow_reads_is_white_at_every_depth_and_blind_to_scale():
    vlm = TinyVLM().double()
    readings = {n: ResidualReading(hidden_size=128, whiten=True).double() for n in (0, 3)}
    fit_readings(readings, vlm)
    tokens = vlm.some_tokens()
    first = torch.full_like(tokens, vlm.encode_text("a")[0])
    read = {}

    def after_layer(number, h):
        if number in readings:
            read[number] = readings[number](h[:, 1])
            torch.testing.assert_close(readings[number](1e3 * h[:, 1]), read[number])
        return h

    with torch.no_grad():
        embeddings = vlm.embed(torch.stack([first, tokens], dim=1))
        vlm(embeddings, torch.arange(2).expand(len(tokens), 2), after_layer=after_layer)
    for states in read.values():
        torch.testing.assert_close(states.mean(0), torch.zeros(128).double(), atol=1e-8, rtol=0)
        assert torch.linalg.eigvalsh(states.T @ states / len(states))[-1] <= 1


def test_it_builds_without_memory_and_copies():
    with torch.device("meta"):
        model = tiny_pretzel(partial(Tiled, word="VVF", skips=ZeroSkip), deep_layers=2)
    assert model.interleaving.vlm_links["1"].linear.weight.is_meta
    assert not any("readings" in name for name in model.state_dict())
