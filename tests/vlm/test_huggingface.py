"""The laws of a frozen causal stream with a cache, for every family of Hugging Face models."""

import copy
from itertools import pairwise

import pytest
import torch
from huggingface_tiny import CONFIGS, LAYERS, VOCAB, WIDTH, tiny_vlm

from pretzel.errors import UserError
from pretzel.vlm.cache import PreallocatedCache
from pretzel.vlm.huggingface.masks import for_attention

CLOSE = {"rtol": 0, "atol": 5e-6}


@pytest.fixture(scope="module", params=CONFIGS)
def vlm(request):
    return tiny_vlm(request.param)


def rows(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, length, WIDTH, generator=generator)


def causal(valid: torch.Tensor) -> torch.Tensor:
    length = valid.shape[1]
    lower = torch.ones(length, length, dtype=torch.bool).tril()
    return ((lower & valid[:, None, :]) | torch.eye(length, dtype=torch.bool))[:, None]


def counted(batch: int, length: int) -> torch.Tensor:
    return torch.arange(length).expand(batch, length)


def inject(strength: float):
    """Another stream that adds to one position in every layer."""

    def after_layer(number: int, h: torch.Tensor) -> torch.Tensor:
        return h + strength * torch.tanh((number + 1.0) * h.roll(1, dims=-1))

    return after_layer


def test_sizes_are_those_of_the_model(vlm):
    assert (vlm.hidden_size, vlm.num_layers, vlm.vocab_size) == (WIDTH, LAYERS, VOCAB)
    tokens = torch.arange(6)[None]
    assert vlm.embed(tokens).shape == (1, 6, WIDTH)
    assert vlm.logits(vlm(vlm.embed(tokens), tokens)).shape == (1, 6, VOCAB)


def test_logits_are_those_of_the_models_own_forward(vlm):
    tokens = torch.randint(VOCAB, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = vlm.model(input_ids=tokens, use_cache=False).logits
        actual = vlm.logits(vlm(vlm.embed(tokens), counted(2, 9)))
    assert torch.equal(actual, expected)


def test_a_state_depends_on_nothing_after_it(vlm):
    x = rows(1, 7).requires_grad_()
    states = vlm(x, counted(1, 7))
    for position in range(7):
        (gradient,) = torch.autograd.grad(states[0, position].square().sum(), x, retain_graph=True)
        reach = gradient[0].abs().amax(-1)
        assert (reach[: position + 1] > 0).all()
        assert (reach[position + 1 :] == 0).all()


def test_without_a_mask_attention_is_causal_whatever_the_index(vlm):
    # transformers takes jumps in the position ids for packed sequences when it makes the mask
    x = rows(2, 10)
    index = torch.tensor([[0, 1, 2, 3, 9, 10, 11, 11, 11, 14], [5, *range(6, 15)]])
    mask = causal(torch.ones(2, 10, dtype=torch.bool))
    torch.testing.assert_close(vlm(x, index), vlm(x, index, mask), **CLOSE)
    for row in range(2):
        alone = vlm(x[row : row + 1], index[row : row + 1])
        torch.testing.assert_close(alone, vlm(x, index, mask)[row : row + 1], **CLOSE)


def test_right_padding_changes_nothing(vlm):
    x = rows(2, 8)
    torch.testing.assert_close(
        vlm(x, counted(2, 8))[1:, :5], vlm(x[1:, :5], counted(1, 5)), **CLOSE
    )


@pytest.mark.parametrize("injected", [False, True], ids=["alone", "injected"])
@pytest.mark.parametrize("edges", [[0, 5, 6, 9, 12], [0, 1, 12]], ids=str)
def test_cached_equals_uncached_with_left_padding(vlm, edges, injected):
    missing, length = [0, 4, 2], 12
    x, valid = rows(3, length), torch.arange(length) >= torch.tensor(missing)[:, None]
    index = (valid.cumsum(1) - 1).clamp(min=0)
    mask, after_layer = causal(valid), inject(0.5) if injected else None
    cache = vlm.new_cache(3, length + 2)
    states = []
    for start, end in pairwise(edges):
        assert cache.length == start
        new = slice(start, end)
        states.append(
            vlm(x[:, new], index[:, new], mask[..., new, :end], cache, after_layer=after_layer)
        )
    cached = torch.cat(states, 1)
    torch.testing.assert_close(cached, vlm(x, index, mask, after_layer=after_layer), **CLOSE)
    for row, count in enumerate(missing):
        alone = vlm(x[row : row + 1, count:], index[row : row + 1, count:], after_layer=after_layer)
        torch.testing.assert_close(cached[row : row + 1, count:], alone, **CLOSE)


def test_a_selected_and_rewound_cache_goes_on_as_its_rows_would(vlm):
    x, index = rows(3, 9), counted(3, 9)
    mask = causal(torch.ones(3, 9, dtype=torch.bool))
    cache = vlm.new_cache(3, 9)
    vlm(x[:, :6], index[:, :6], mask[..., :6, :6], cache)
    chosen = torch.tensor([2, 0, 2, 1])
    selected = cache.select(chosen)
    assert isinstance(selected, PreallocatedCache)
    vlm(rows(4, 2, seed=1), index[chosen, 6:8], mask[chosen, :, 6:8, :8], selected)
    selected.rewind(2)
    states = vlm(x[chosen, 6:], index[chosen, 6:], mask[chosen, :, 6:], selected)
    torch.testing.assert_close(states, vlm(x, index)[chosen, 6:], **CLOSE)
    assert (cache.length, selected.length) == (6, 9)


def test_cache_refuses_what_it_cannot_hold(vlm):
    x, index = rows(2, 4), counted(2, 4)
    mask = torch.ones(2, 1, 4, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match="max_length=3 positions, got 0 \\+ 4"):
        vlm(x, index, mask, vlm.new_cache(2, 3))
    with pytest.raises(ValueError, match="mask is required with a cache"):
        vlm(x, index, None, vlm.new_cache(2, 4))


def test_another_stream_reads_and_writes_every_layer_once(vlm):
    x, index, seen = rows(1, 6), counted(1, 6), []

    def read(number, h):
        seen.append((number, h))
        return h

    with torch.no_grad():
        expected = vlm(x, index)
        assert torch.equal(vlm(x, index, after_layer=read), expected)
        assert [number for number, _ in seen] == list(range(LAYERS))
        last = vlm.final_norm(seen[-1][1])
        torch.testing.assert_close(last, expected, **CLOSE)
        assert torch.equal(vlm(x, index), expected)  # nothing stays hooked
    assert len(seen) == LAYERS


@pytest.mark.parametrize("layer", range(LAYERS))
def test_what_joins_a_layer_changes_only_what_comes_after(vlm, layer):
    def write(number, h):
        if number == layer:
            h = h.clone()
            h[:, 3] += 1.0
        return h

    x, index = rows(1, 7), counted(1, 7)
    difference = (vlm(x, index, after_layer=write) - vlm(x, index)).abs().amax(-1)[0]
    assert (difference[:3] == 0).all()
    assert difference[3] > 0
    assert (difference[4:] > 0).all() == (layer < LAYERS - 1)


def test_hooks_are_removed_when_another_stream_fails(vlm):
    def fail(number, h):
        raise KeyError(number)

    x, index = rows(1, 4), counted(1, 4)
    expected = vlm(x, index)
    with pytest.raises(KeyError):
        vlm(x, index, after_layer=fail)
    assert torch.equal(vlm(x, index), expected)


def test_a_query_without_keys_gives_finite_states_and_gradients(vlm):
    x = rows(1, 6).requires_grad_()
    mask = causal(torch.ones(1, 6, dtype=torch.bool))
    mask[..., 2, :] = False
    states = vlm(x, counted(1, 6), mask)
    states.square().sum().backward()
    assert states.isfinite().all()
    assert x.grad.isfinite().all()


def test_gradients_pass_through_but_no_weight_gets_one(vlm):
    vlm.train()
    assert not any(module.training for module in vlm.modules())
    x = rows(2, 5).requires_grad_()
    vlm.logits(vlm(x, counted(2, 5))).logsumexp(-1).mean().backward()
    assert x.grad.abs().amax(-1).min() > 0
    assert all(p.grad is None and not p.requires_grad for p in vlm.parameters())


def test_recomputed_layers_give_the_same_gradients(vlm):
    recomputing = copy.deepcopy(vlm)
    recomputing.gradient_checkpointing = True
    calls, joined, gradients = [], [], []
    recomputing.decoder_layers()[1].self_attn.register_forward_hook(lambda *_: calls.append(1))

    def after_layer(number, h):
        joined.append(number)
        return inject(0.1)(number, h)

    for model in (vlm, recomputing):
        x = rows(2, 6).requires_grad_()
        states = model(x, counted(2, 6), after_layer=after_layer)
        states.square().sum().backward()
        gradients.append(x.grad)
    assert torch.equal(*gradients)
    assert len(calls) == 2  # forward, and again in the backward pass
    assert len(joined) == 2 * LAYERS  # once a layer in each model
    with torch.no_grad():
        recomputing(rows(2, 6), counted(2, 6))
    assert len(calls) == 3
    assert torch.equal(recomputing(rows(1, 3), counted(1, 3)), vlm(rows(1, 3), counted(1, 3)))


def test_what_was_exchanged_in_a_layer_is_so_when_it_is_recomputed():
    # as interleavings do that route positions through weights of their own
    gradients = []
    for recompute in (False, True):
        vlm = tiny_vlm("llama", gradient_checkpointing=recompute)
        linear, own = vlm.decoder_layers()[1].mlp.down_proj, torch.nn.Linear(64, WIDTH)
        with torch.no_grad():
            own.weight.copy_(2 * linear.weight)
        vars(linear)["forward"] = own.forward
        states = vlm(rows(1, 5), counted(1, 5))
        del vars(linear)["forward"]
        states.square().sum().backward()
        assert "forward" not in vars(linear)
        gradients.append(own.weight.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("family", ["llama", "qwen2_5_vl"])
def test_eager_attention_reads_the_same_masks(family):
    vlm, eager = tiny_vlm(family), tiny_vlm(family, attention="eager")
    x, valid = rows(2, 8), torch.arange(8) >= torch.tensor([0, 3])[:, None]
    index, mask = (valid.cumsum(1) - 1).clamp(min=0), causal(valid)
    torch.testing.assert_close(eager(x, index, mask), vlm(x, index, mask), **CLOSE)
    torch.testing.assert_close(eager(x, index), vlm(x, index), **CLOSE)


def test_mixed_precision_works_with_a_cache():
    vlm = tiny_vlm("qwen2")
    x, index, mask = rows(1, 8), counted(1, 8), causal(torch.ones(1, 8, dtype=torch.bool))
    cache = vlm.new_cache(1, 8)
    with torch.autocast("cpu", torch.bfloat16):
        vlm(x[:, :7], index[:, :7], mask[..., :7, :7], cache)
        cached = vlm(x[:, 7:], index[:, 7:], mask[..., 7:, :], cache)
        full = vlm(x, index, mask)[:, 7:]
    assert (cached - full).norm() / full.norm() < 0.05


def test_flash_attention_reads_left_padding_off_a_mask():
    valid = torch.arange(6) >= torch.tensor([0, 2])[:, None]
    mask = causal(valid)
    assert torch.equal(for_attention(mask, "flash_attention_2", torch.bfloat16), valid)
    chunk = for_attention(mask[..., 4:, :], "flash_attention_2", torch.bfloat16)
    assert torch.equal(chunk, valid)
    apart = mask.clone()
    apart[:, :, 5, 3] = False
    with pytest.raises(UserError, match="use attention=sdpa"):
        for_attention(apart, "flash_attention_2", torch.bfloat16)
