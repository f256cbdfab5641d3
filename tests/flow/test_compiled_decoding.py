"""The compiled operator computes what the layers compute, or the log says why it does not."""

import logging
from functools import partial

import pytest
import torch

from pretzel.flow import GEGLU, CausalTransformer, LayerNorm, SwiGLU, compiled_decoding
from pretzel.flow.compiled_decoding import CompiledLayers
from pretzel.flow.decoding_operator import decoding_operator
from pretzel.testing import perturb

LENGTH = 9

KINDS = {
    "plain": {},
    "SwiGLU": {"mlp": SwiGLU},
    "GEGLU, layer norms": {"mlp": GEGLU, "pre_norm": LayerNorm, "bias": False},
    "layer norms": {"pre_norm": LayerNorm, "qk_norm": False, "final_norm": False},
    "gated and grouped": {"gated_attention": True, "num_kv_heads": 2},
}


def transformer(dtype=torch.float64, **options):
    model = CausalTransformer(3, width=32, head_dim=8, **options)
    perturb(model)
    return model.eval().to(dtype)


def angles(*shape):
    half = torch.rand(*shape, 4, dtype=torch.float64)
    both = torch.cat([half, half], -1)
    return both.cos(), both.sin()


def stepped(model, inputs, places, masks, is_on):
    """Return states, cache and whether the operator was asked."""
    cache = model.new_cache(len(inputs), LENGTH, torch.tensor([1.0, 0.5, 2.0]))
    with torch.no_grad(), compiled_decoding.compiled_decoding(is_on):
        states = [
            model(inputs[:, i : i + 1], place, mask, cache)
            for i, (place, mask) in enumerate(zip(places, masks, strict=True))
        ]
    return torch.cat(states, 1), cache.entries, isinstance(cache.layout.compiled, CompiledLayers)


@pytest.mark.parametrize("kind", KINDS)
def test_states_and_cache_are_those_of_the_layers(kind):
    model = transformer(**KINDS[kind])
    inputs = torch.randn(3, LENGTH, 32, dtype=torch.float64)
    # rotations of all rows, then of each; rows that are padded on the left
    places = [angles(1, 1, 1), None, *(angles(3, 1, 1) for _ in range(LENGTH - 2))]
    masks = [None, None, None]
    for i in range(3, LENGTH):
        first = torch.tensor([0, 1, 2] if i > 3 else [1])  # of each row, then of all
        masks.append(torch.arange(i + 1) >= first[:, None, None, None])
    plain, kept, _ = stepped(model, inputs, places, masks, is_on=False)
    compiled, written, was_asked = stepped(model, inputs, places, masks, is_on=True)
    assert was_asked
    torch.testing.assert_close(compiled, plain, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(written, kept, rtol=1e-12, atol=1e-12)


def test_part_of_the_layers_runs_too():
    model = transformer()
    h, caches = torch.randn(3, 1, 32, dtype=torch.float64), []
    with torch.no_grad():
        for is_on in (False, True):
            cache = model.new_cache(3, 2)
            with compiled_decoding.compiled_decoding(is_on):
                middle = model.run(h, 0, 2, None, None, cache)
                caches.append((middle, model.run(middle, 2, 3, None, None, cache), cache.entries))
    for plain, compiled in zip(*caches, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-12, atol=1e-12)


REFUSED = {
    "branches are normalised": {"post_norm": True},
    "norms are not all RMSNorm or all LayerNorm": {"pre_norm": torch.nn.RMSNorm},
    "weights are torch.bfloat16, neither torch.float32 nor torch.float64": {
        "dtype": torch.bfloat16
    },
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_compiled_runs_as_it_is(reason, caplog):
    model = transformer(**REFUSED[reason])
    inputs = torch.randn(3, 2, 32).to(model.layers[0].mlp.up.weight.dtype)
    compiled_decoding._log.cache_clear()
    plain = stepped(model, inputs, [None] * 2, [None] * 2, is_on=False)
    with caplog.at_level(logging.WARNING):
        compiled = stepped(model, inputs, [None] * 2, [None] * 2, is_on=True)
    assert torch.equal(plain[0], compiled[0])
    assert [record.message for record in caplog.records] == [
        f"compile: {reason}, so sampling runs uncompiled"
    ]


@pytest.mark.parametrize(
    ("compiler", "message"),
    [("no-such-compiler", "there is no C++ compiler no-such-compiler"), ("false", "false failed")],
)
def test_why_there_is_no_operator(compiler, message, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build = partial(decoding_operator.__wrapped__)
    assert build().startswith(message)
    assert not list(tmp_path.rglob("*.so*"))


def test_more_positions_than_fit_are_refused():
    model = transformer(torch.float32)
    inputs = torch.randn(3, LENGTH + 1, 32)
    with pytest.raises(ValueError, match=f"holds max_length={LENGTH} positions, got {LENGTH + 1}"):
        stepped(model, inputs, [None] * (LENGTH + 1), [None] * (LENGTH + 1), is_on=True)
