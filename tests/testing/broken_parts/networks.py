"""Conditioners, MLPs and norms that are wrong in one place, in an otherwise plain block."""

from functools import partial

import torch
from torch import nn

from broken_parts import Broken
from pretzel.flow import AFBlock, AffineSoftplus, CausalTransformer, Flip
from pretzel.flow.cache import KVCache
from pretzel.flow.mlp import MLP
from pretzel.flow.norms import RMSNorm
from pretzel.flow.transformer_layer import Attention


def block(kind=CausalTransformer, **options):
    conditioner = partial(kind, width=16, head_dim=8, **options)
    return partial(
        AFBlock, 3, (2, 3), 2, Flip(), transform=AffineSoftplus(), conditioner=conditioner
    )


class OwnCache(CausalTransformer):
    cache: type[KVCache] = KVCache

    def new_cache(self, batch_size, max_length, temperature=None):
        cache = super().new_cache(batch_size, max_length, temperature)
        cache.__class__ = self.cache
        return cache


class SelectsKeysOnly(OwnCache):
    class cache(KVCache):
        def select(self, rows):
            chosen = super().select(rows)
            first = self.entries[:, 1, : len(rows)].repeat(1, 2, 1, 1, 1)
            chosen.entries[:, 1] = first[:, : len(rows)]
            return chosen


class SelectsAView(OwnCache):
    """Copies nothing where all rows are kept or repeated in order: the first rows are shared."""

    class cache(KVCache):
        def select(self, rows):
            chosen = super().select(rows)
            chosen.entries = self.entries
            return chosen if len(rows) <= len(self) else super().select(rows % 2)


class CountsFromZero(CausalTransformer):
    """Runs the first layers again in the place of the last."""

    def run(self, h, start, stop, *args, **kwargs):
        return super().run(h, 0, stop - start, *args, **kwargs)


class CommitsWhenItRuns(CausalTransformer):
    def run(self, h, start, stop, rotation=None, mask=None, cache=None, modulation=None):
        h = super().run(h, start, stop, rotation, mask, cache, modulation)
        if cache is not None and stop == self.num_layers:
            cache.commit(h.shape[1])
        return h

    def finish(self, h, cache=None):
        return super().finish(h)


class ModulatesTheFirstLayer(CausalTransformer):
    def run(self, h, start, stop, rotation=None, mask=None, cache=None, modulation=None):
        if modulation is not None:
            modulation = modulation * (torch.arange(modulation.shape[1]) == 0)[:, None, None]
        return super().run(h, start, stop, rotation, mask, cache, modulation)


class MeanModulation(CausalTransformer):
    """Modulates all rows by the mean over the batch."""

    def run(self, h, start, stop, rotation=None, mask=None, cache=None, modulation=None):
        if modulation is not None:
            modulation = modulation + modulation.mean(0, keepdim=True)
        return super().run(h, start, stop, rotation, mask, cache, modulation)


class SquareMask(CausalTransformer):
    """Takes a mask behind a cache for one of the new positions alone."""

    def run(self, h, start, stop, rotation=None, mask=None, cache=None, modulation=None):
        if isinstance(mask, torch.Tensor) and cache is not None and cache.length:
            mask = mask.clone()
            mask[..., : cache.length] = True
        return super().run(h, start, stop, rotation, mask, cache, modulation)


class TurnsTheOtherWayInSampling(CausalTransformer):
    """Has two codes of which one is wrong."""

    def run(self, h, start, stop, rotation=None, mask=None, cache=None, modulation=None):
        if rotation is not None and cache is not None and not torch.is_grad_enabled():
            rotation = rotation[0], -rotation[1]
        return super().run(h, start, stop, rotation, mask, cache, modulation)


class RotatesQueriesAlone(CausalTransformer):
    class Attention(Attention):
        def _query_key_value(self, heads, rotation):
            _, key, value = super()._query_key_value(heads, None)
            return super()._query_key_value(heads, rotation)[0], key, value

    def __init__(self, num_layers, **options):
        super().__init__(num_layers, **options)
        for layer in self.layers:
            layer.attention.__class__ = self.Attention


class IgnoresRotations(CausalTransformer):
    def run(self, h, start, stop, rotation=None, mask=None, cache=None, modulation=None):
        return super().run(h, start, stop, None, mask, cache, modulation)


class MixesPositions(MLP):
    """Adds the mean over the sequence, in evaluation mode alone."""

    def forward(self, x):
        y = super().forward(x)
        return y if self.training or x.dim() < 3 else y + 0.1 * y.mean(dim=1, keepdim=True)


class BatchNorm(RMSNorm):
    """Normalises over the batch as well, as batch norms without running statistics do."""

    def forward(self, x):
        scale = x.square().mean(dim=(0, -1), keepdim=True) if x.dim() == 3 else 1.0
        return x * self.weight / (scale + 1e-6) ** 0.5


class SinglePrecisionNorm(RMSNorm):
    """Computes in float32 also where more was given."""

    def forward(self, x):
        return super().forward(x.float()).to(x.dtype)


class UnusedGain(RMSNorm):
    def __init__(self, width):
        super().__init__(width)
        self.offset = nn.Parameter(torch.zeros(width))


class FrozenGain(RMSNorm):
    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.weight.detach()


class DetachedScale(RMSNorm):
    def forward(self, x):
        scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6).detach()
        return x * scale * self.weight


BROKEN = [
    *(
        Broken(block(kind), block(), law)
        for kind, law in [
            (SelectsKeysOnly, "conditioners.rows_of_a_cache_can_be_selected"),
            (SelectsAView, "conditioners.rows_of_a_cache_can_be_selected"),
            (CountsFromZero, "conditioners.layers_can_be_run_in_parts"),
            (CommitsWhenItRuns, "conditioners.layers_can_be_run_in_parts"),
            (ModulatesTheFirstLayer, "conditioners.modulation_acts_on_its_own_rows"),
            (MeanModulation, "conditioners.modulation_acts_on_its_own_rows"),
            (RotatesQueriesAlone, "conditioners.rotations_are_relative"),
            (IgnoresRotations, "conditioners.rotations_are_relative"),
            (TurnsTheOtherWayInSampling, "conditioners.recording_changes_no_state"),
            (SquareMask, "conditioners.masks_hide_what_stands_before"),
        ]
    ),
    Broken(block(mlp=MixesPositions), block(mlp=MLP), "autoregressive.jacobian_is_triangular"),
    *(
        Broken(block(norm=norm), block(norm=RMSNorm), law)
        for norm, law in [
            (BatchNorm, "blocks.rows_are_independent"),
            (SinglePrecisionNorm, "gradients.gradients_are_those_of_finite_differences"),
            (UnusedGain, "gradients.every_parameter_is_trained"),
            (FrozenGain, "gradients.every_parameter_is_trained"),
            (DetachedScale, "gradients.gradients_are_those_of_finite_differences"),
        ]
    ),
]
