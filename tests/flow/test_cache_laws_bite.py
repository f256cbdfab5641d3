"""Deliberately broken caches, temperatures and masks: each is caught by one law and no other."""

from functools import partial

import pytest
import torch

from pretzel.flow import AFBlock, AffineSoftplus, CausalTransformer, Flip
from pretzel.testing import Case, LawBroken, laws_of
from pretzel.testing.suite import try_law


class OneCacheForAll(AFBlock):
    """Keeps its memory on itself, as a module with buffers would."""

    def new_cache(self, batch_size, context=None, temperature=None):
        cache = super().new_cache(batch_size, context, temperature)
        if "memory" not in vars(self) or len(self.memory) != batch_size:
            self.memory = self.conditioner.new_cache(batch_size, 4 * len(self.order))
        self.memory.length, self.memory.query_scale = 0, cache.network.query_scale
        cache.network = self.memory
        return cache


class IgnoresTemperature(CausalTransformer):
    def new_cache(self, batch_size, max_length, temperature=None):
        return super().new_cache(batch_size, max_length)


class OneTemperatureForAll(CausalTransformer):
    def new_cache(self, batch_size, max_length, temperature=None):
        if temperature is not None:
            temperature = temperature.mean().expand(batch_size)
        return super().new_cache(batch_size, max_length, temperature)


class InvertedTemperature(CausalTransformer):
    def new_cache(self, batch_size, max_length, temperature=None):
        temperature = None if temperature is None else 1 / temperature
        return super().new_cache(batch_size, max_length, temperature)


class RootOfTemperature(CausalTransformer):
    def new_cache(self, batch_size, max_length, temperature=None):
        temperature = None if temperature is None else temperature.sqrt()
        return super().new_cache(batch_size, max_length, temperature)


class EvaluatesWithoutTemperature(AFBlock):
    def evaluate(self, x, start, stop, cache):
        if start == 0 and stop == x.shape[1]:
            return self.condition(x)
        return super().evaluate(x, start, stop, cache)

    def rewind(self, start, stop, cache):
        if start > 0 or stop < len(self.order):
            super().rewind(start, stop, cache)


class TakesNoMask(CausalTransformer):
    def forward(self, h, rotation=None, mask=None, cache=None, modulation=None):
        return super().forward(h, rotation, None, cache, modulation)


class NoMaskBehindTheCache(CausalTransformer):
    def forward(self, h, rotation=None, mask=None, cache=None, modulation=None):
        mask = None if cache is not None and cache.length else mask
        return super().forward(h, rotation, mask, cache, modulation)


def factory(block=AFBlock, conditioner=CausalTransformer):
    return partial(
        block, 3, (2, 2), 2, Flip(),
        transform=AffineSoftplus(), conditioner=partial(conditioner, width=8, head_dim=4),
    )  # fmt: skip


def failures(part):
    """Return what fails, perturbed; the laws of values alone have bite tests of their own."""
    case = Case(factory=part, perturbed=True)
    laws = [law for law in laws_of(part()) if not law.name.startswith("blocks.")]
    outcomes = [try_law(law, case) for law in laws]
    return [outcome for outcome in outcomes if not outcome.passed]


ACTS = "temperatures.temperature_acts_on_its_own_rows"
DIVIDES = "temperatures.temperature_divides_the_logits"
MASKS = "conditioners.masks_hide_what_stands_before"


@pytest.mark.parametrize(
    ("part", "laws"),
    [
        (factory(OneCacheForAll), {"autoregressive.caches_share_nothing"}),
        # Without any effect there is no direction either
        (factory(conditioner=IgnoresTemperature), {ACTS, DIVIDES}),
        (factory(conditioner=OneTemperatureForAll), {ACTS, DIVIDES}),
        (factory(conditioner=InvertedTemperature), {DIVIDES}),
        (factory(conditioner=RootOfTemperature), {DIVIDES}),
        (factory(EvaluatesWithoutTemperature), {"temperatures.evaluations_keep_the_temperature"}),
        (factory(conditioner=TakesNoMask), {MASKS}),
        (factory(conditioner=NoMaskBehindTheCache), {MASKS}),
    ],
)
def test_exactly_its_law_catches(part, laws):
    failed = failures(part)
    assert {outcome.law.name for outcome in failed} == laws
    assert all(isinstance(outcome.cause, LawBroken) for outcome in failed)


class RefusesBoth(CausalTransformer):
    """As a network without attention may, if it says so."""

    def __init__(self, *args, message="no {}", **kwargs):
        super().__init__(*args, **kwargs)
        self.message = message

    def new_cache(self, batch_size, max_length, temperature=None):
        if temperature is not None:
            raise ValueError(self.message.format("temperature"))
        return super().new_cache(batch_size, max_length)

    def forward(self, h, rotation=None, mask=None, cache=None, modulation=None):
        if mask is not None:
            raise ValueError(self.message.format("mask"))
        return super().forward(h, rotation, mask, cache, modulation)


class NeverHeardOfTemperatures(AFBlock):
    def new_cache(self, batch_size, context=None):
        return super().new_cache(batch_size, context)


@pytest.mark.parametrize(
    "part", [factory(conditioner=RefusesBoth), factory(NeverHeardOfTemperatures)]
)
def test_a_refusal_by_name_is_no_mistake(part):
    assert not failures(part)


def test_a_refusal_must_name_what_it_refuses():
    part = factory(conditioner=partial(RefusesBoth, message="not implemented"))
    failed = {outcome.law.name for outcome in failures(part)}
    assert failed == {ACTS, DIVIDES, MASKS, "temperatures.evaluations_keep_the_temperature"}


def test_a_high_temperature_is_uniform_attention():
    """Test the law of the black box with the logits in view."""
    torch.manual_seed(0)
    network = CausalTransformer(1, width=8, head_dim=4, qk_norm=False).double()
    h = torch.randn(1, 4, 8, dtype=torch.float64)
    with torch.no_grad():
        hot = network(h, cache=network.new_cache(1, 4, torch.tensor([1e15])))
        network.layers[0].attention.qkv.weight[:8] = 0  # queries of zero: logits of zero
        torch.testing.assert_close(hot, network(h), rtol=0, atol=1e-12)
