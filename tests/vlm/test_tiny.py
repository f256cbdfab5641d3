"""The tiny VLM beyond the laws of a frozen causal stream with a cache."""

import copy

import pytest
import torch

from pretzel.vlm.base import VLMCache
from pretzel.vlm.tiny import TinyVLM


@pytest.fixture(scope="module")
def vlm(shipped: TinyVLM) -> TinyVLM:
    """In float64, where a law holds to rounding or not at all."""
    return copy.deepcopy(shipped).double()


def rows(vlm: TinyVLM, batch: int, length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randn(batch, length, vlm.hidden_size, generator=generator, dtype=torch.float64)


def causal(valid: torch.Tensor) -> torch.Tensor:
    length = valid.shape[1]
    lower = torch.ones(length, length, dtype=torch.bool).tril()
    return ((lower & valid[:, None, :]) | torch.eye(length, dtype=torch.bool))[:, None]


def test_index_jumps_in_a_row_do_not_cut_it(vlm):
    # transformers takes a jump in the position ids for a packed sequence when it makes the mask
    x = rows(vlm, 1, 10)
    index = torch.tensor([[0, 1, 2, 3, 9, 10, 11, 12, 13, 14]])
    mask = causal(torch.ones(1, 10, dtype=torch.bool))
    torch.testing.assert_close(vlm(x, index), vlm(x, index, mask), rtol=0, atol=1e-10)
    changed = x.clone()
    changed[:, 0] += 1
    assert not torch.allclose(vlm(changed, index)[:, -1], vlm(x, index)[:, -1])


def test_only_index_differences_matter(vlm):
    # rotary positions are relative, so that a row may begin anywhere
    x, index = rows(vlm, 1, 15), torch.arange(15)[None]
    torch.testing.assert_close(vlm(x, index + 7), vlm(x, index), rtol=0, atol=1e-10)
    assert not torch.allclose(vlm(x, index * 2), vlm(x, index), atol=1e-3)


def test_cache_refuses_what_it_cannot_hold(vlm):
    x, index = rows(vlm, 2, 4), torch.arange(4).expand(2, 4)
    mask = torch.ones(2, 1, 4, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match="max_length=3 positions, got 0 \\+ 4"):
        vlm(x, index, mask, vlm.new_cache(2, 3))
    with pytest.raises(ValueError, match="batch_size=1 rows, got 2"):
        vlm(x, index, mask, vlm.new_cache(1, 4))
    with pytest.raises(ValueError, match="mask is required with a cache"):
        vlm(x, index, None, vlm.new_cache(2, 4))


def test_cache_of_another_model_is_refused(vlm):
    class OtherCache(VLMCache):
        @property
        def length(self) -> int:
            return 0

        def rewind(self, num_positions):
            raise NotImplementedError

        def select(self, rows):
            return self

    mask = torch.ones(1, 1, 2, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="new_cache, got OtherCache"):
        vlm(rows(vlm, 1, 2), torch.arange(2)[None], mask, OtherCache())


def test_a_query_without_keys_gives_finite_states_and_gradients(vlm):
    x = rows(vlm, 1, 6).requires_grad_()
    mask = causal(torch.ones(1, 6, dtype=torch.bool))
    mask[..., 2, :] = False
    states = vlm(x, torch.arange(6)[None], mask)
    states.square().sum().backward()
    assert states.isfinite().all()
    assert x.grad.isfinite().all()


def test_gradients_pass_through_but_no_weight_gets_one(shipped):
    vlm = copy.deepcopy(shipped)
    before = {name: tensor.clone() for name, tensor in vlm.state_dict().items()}
    adapter = torch.nn.Linear(vlm.hidden_size, vlm.hidden_size)
    model = torch.nn.ModuleDict({"vlm": vlm, "adapter": adapter})
    model.train()
    assert not any(module.training for module in vlm.modules())
    assert not any(parameter.requires_grad for parameter in vlm.parameters())
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert len(trained) == 2
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, weight_decay=0.1)
    loss = vlm.logits(vlm(adapter(torch.randn(2, 9, 128)), torch.arange(9).expand(2, 9)))
    loss.logsumexp(-1).mean().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in trained)
    optimizer.step()
    for name, tensor in vlm.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_building_draws_no_random_numbers():
    before = torch.get_rng_state()
    TinyVLM()
    assert torch.equal(torch.get_rng_state(), before)


def test_it_builds_on_the_meta_device():
    with torch.device("meta"):
        vlm = TinyVLM()
    assert {parameter.device.type for parameter in vlm.parameters()} == {"meta"}
    with torch.device("meta"):
        states = vlm(torch.empty(2, 5, vlm.hidden_size), torch.arange(5).expand(2, 5))
    assert states.shape == (2, 5, vlm.hidden_size)


def test_bfloat16_stays_close(shipped):
    x, index = rows(shipped, 2, 30).float(), torch.arange(30).expand(2, 30)
    half = copy.deepcopy(shipped).bfloat16()
    exact, rounded = shipped(x, index), half(x.bfloat16(), index).float()
    relative = (rounded - exact).norm() / exact.norm()
    assert relative < 0.05


def test_mixed_precision_works_with_a_cache(shipped):
    x, index = rows(shipped, 1, 8).float(), torch.arange(8)[None]
    mask = causal(torch.ones(1, 8, dtype=torch.bool))
    cache = shipped.new_cache(1, 8)
    with torch.autocast("cpu", torch.bfloat16):
        shipped(x[:, :7], index[:, :7], mask[..., :7, :7], cache)
        cached = shipped(x[:, 7:], index[:, 7:], mask[..., 7:, :], cache)
        full = shipped(x, index, mask)[:, 7:]
    assert (cached - full).norm() / full.norm() < 0.02
