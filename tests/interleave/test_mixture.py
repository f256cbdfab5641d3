"""MixtureOfTransformers: whose weights act where, and that the VLM's stay what they are."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from pretzel.errors import UserError
from pretzel.generation.latents import sample_u
from pretzel.interleave.mixture import MixtureOfTransformers
from pretzel.interleave.routed import Route, own_copy, routable, routed
from pretzel.sampling.guidance import AttentionTemperature, GaussianMixing
from pretzel.sequence.document import Document, Image, Text
from pretzel.testing import Case, perturb, tiny_pretzel
from pretzel.testing.laws.models import latents, run_streams
from pretzel.testing.tiny_model import batch
from pretzel.vlm.tiny import TinyVLM

DOCUMENT = Document(key="", segments=(Text(content="look"), Image(), Text(content="a circle?")))


def factory(**options):
    return partial(tiny_pretzel, partial(MixtureOfTransformers, **options), deep_layers=0)


def built(*, perturbed=True, **options):
    return Case(factory=factory(**options), perturbed=perturbed).build()


def test_each_position_runs_through_its_own_weights_only():
    text, image, x = nn.Linear(3, 2), nn.Linear(3, 2), torch.randn(2, 5, 4, 3)
    rows = []
    for part in (text, image):
        part.register_forward_hook(lambda part, args, out: rows.append(len(args[0])))
    is_image = torch.tensor([[0, 1, 1, 0, 0], [0, 0, 0, 0, 1]]).bool()
    actual = Route(is_image)(text, image, x)
    assert rows == [7, 3]
    expected = torch.where(is_image[..., None, None], image(x), text(x))
    torch.testing.assert_close(actual, expected)


def test_forward_is_exchanged_for_the_length_of_a_call_only_and_by_whom_it_was_before():
    module, other = nn.Linear(2, 2), nn.Linear(2, 2)
    x, nobody, everybody = torch.ones(1, 1, 2), torch.zeros(1, 1) > 0, torch.ones(1, 1) > 0
    own = module(x)
    with routed([module], None, [other], everybody):
        assert torch.equal(module(x), other(x))
    with pytest.raises(RuntimeError), routed([module], None, [other], everybody):
        module(torch.ones(1, 1, 5))  # of another width
    assert "forward" not in vars(module)
    assert torch.equal(module(x), own)
    vars(module)["forward"] = lambda x: 2 * x
    with routed([module], None, [other], nobody):
        assert torch.equal(module(x), 2 * x)
    assert torch.equal(module(x), 2 * x)


def test_layers_of_other_weights_are_refused():
    with pytest.raises(UserError, match=r"Linears and norms .* got Conv1d at '0'"):
        routable(nn.Sequential(nn.Conv1d(1, 1, 1)))


def test_all_weights_of_the_decoder_layers_and_the_final_norm_have_their_own_at_images():
    vlm = TinyVLM()
    model = built(perturbed=False)
    per_layer = 7 + 2  # q, k, v, o, gate, up, down, and the norms before attention and MLP
    assert len(model.interleaving.image_weights) == 4 * per_layer + 1
    assert len(routable(vlm.decoder_layers())) == 4 * per_layer
    held = sum(p.numel() for p in model.interleaving.image_weights.parameters())
    decoder = sum(p.numel() for p in model.vlm.decoder_layers().parameters())
    assert held == decoder + model.vlm.hidden_size


def test_copies_are_trainable_and_random_ones_differ():
    linear = nn.Linear(64, 64, dtype=torch.bfloat16).requires_grad_(False)
    same, fresh = own_copy(linear, random=False), own_copy(linear, random=True)
    assert same.weight.dtype == torch.float32
    assert all(p.requires_grad for p in same.parameters())
    assert torch.equal(same.weight, linear.weight.float())
    assert abs(float(fresh.weight.detach().std()) - 0.5 / 8) < 0.01
    assert not fresh.bias.any()
    assert torch.equal(own_copy(nn.RMSNorm(4), random=True).weight, torch.ones(4))


def test_text_before_an_image_stays_the_vlms_own_however_the_flow_is_trained():
    model = built()
    packed = model.pack([DOCUMENT])
    begin = int(packed.is_image[0].int().argmax())
    with torch.no_grad():
        text = run_streams(model, [DOCUMENT], latents(model, 1)).text[:, :begin]
        own = model.vlm(model.vlm.embed(packed.tokens), packed.index)[:, :begin]
        torch.testing.assert_close(text, own, rtol=0, atol=1e-10)
        perturb(trained := built(trains_text=True))
        moved = run_streams(trained, [DOCUMENT], latents(model, 1)).text[:, :begin]
    assert (moved - own).abs().max() > 1e-3


@pytest.mark.parametrize("trains_text", [False, True])
def test_training_leaves_the_vlm_bit_identical_and_its_state_dict_alone(trains_text):
    model = built(trains_text=trains_text, perturbed=False)
    names, before = list(TinyVLM().state_dict()), copy.deepcopy(model.vlm.state_dict())
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    given = batch(model)
    output = model(given, latents(model, len(given.images)))
    (output.token_nll.mean() - output.log_prob.mean()).backward()
    optimizer.step()
    assert list(model.vlm.state_dict()) == names
    for name, value in model.vlm.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not any(p.grad is not None for p in model.vlm.parameters())
    assert not {id(p) for p in trained} & {id(p) for p in model.vlm.parameters()}


def test_it_copies_saves_and_builds_without_memory():
    model = built()
    u = latents(model, 1)
    with torch.no_grad():
        expected = run_streams(model, [DOCUMENT], u).deep
        twin = copy.deepcopy(model)
        perturb(model.interleaving)
        assert torch.equal(run_streams(twin, [DOCUMENT], u).deep, expected)
        fresh = factory()().double()
        fresh.load_state_dict(twin.state_dict())
        assert torch.equal(run_streams(fresh, [DOCUMENT], u).deep, expected)
    with torch.device("meta"):
        light = MixtureOfTransformers(12, 128, 24, trains_text=True, random_start=True)
        light.start_from(TinyVLM())
    assert all(p.is_meta for p in light.parameters())


def test_a_deep_stream_with_layers_is_refused():
    with pytest.raises(UserError, match=r"split must give the deep stream 0 layers .* got 2"):
        tiny_pretzel(MixtureOfTransformers, deep_layers=2)


def test_tempering_attention_that_there_is_not_is_refused():
    model = built()
    z = latents(model, 1)
    guidance = AttentionTemperature(GaussianMixing(weight=1.0), temperature=0.5)
    with pytest.raises(UserError, match="attention of its own"):
        sample_u(model, ["a"], z, guidance)
