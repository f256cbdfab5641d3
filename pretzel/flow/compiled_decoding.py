"""Layers of a transformer at one position: as they are laid out, or by the compiled operator.

Compiled are layers on a CPU with RMS or layer norms and an MLP of ours; the weights are arguments
of the operator, which is therefore built once for all layers, blocks and models.
"""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial

import torch
from torch import nn

from pretzel.flow.cache import KVCache
from pretzel.flow.conditioner import Modulation
from pretzel.flow.decoding import DecodingLayer, Layout, Place
from pretzel.flow.decoding_operator import decoding_operator
from pretzel.flow.mlp import GEGLU, MLP, SwiGLU
from pretzel.flow.norms import RMSNorm, over_length
from pretzel.typing import Float, Tensor

logger = logging.getLogger(__name__)

_IS_ON: ContextVar[bool] = ContextVar("compiled decoding", default=False)

_ACTIVATIONS: list[type[nn.Module]] = [MLP, SwiGLU, GEGLU]
"""Their places are their numbers in ``decoding_layers.cpp``."""


@contextmanager
def compiled_decoding(is_on: bool = True) -> Iterator[None]:
    """Within, layers at single positions run compiled where they can; why not is logged once."""
    token = _IS_ON.set(is_on)
    try:
        yield
    finally:
        _IS_ON.reset(token)


def is_compiled() -> bool:
    """Tell whether this is within :func:`compiled_decoding`."""
    return _IS_ON.get()


def run_layers(
    layout: Layout,
    states: Float[Tensor, "n w"],
    place: Place,
    cache: KVCache,
    numbers: range,
    modulation: Modulation | None,
) -> Float[Tensor, "n w"]:
    """Run consecutive layers over the new positions of all rows."""
    if _IS_ON.get() and len(states) == len(cache) and numbers:
        if layout.compiled is None:
            layout.compiled = _compiled(layout)
        if isinstance(layout.compiled, CompiledLayers):
            return layout.compiled(states, place, cache, numbers)
    for number in numbers:
        of_layer = None if modulation is None else modulation[:, number, :, None]
        states = layout.layers[number](states, place, cache, number, of_layer)
    return states


class CompiledLayers:
    """The layers of a layout, as arguments of the operator."""

    def __init__(
        self, layout: Layout, operator: Callable[..., Tensor], norm: tuple[bool, float, float]
    ) -> None:
        self.operator = operator
        self.none = layout.scale.new_empty(0)
        self.parts = [self._parts(layer) for layer in layout.layers]
        self.num_heads = layout.attention.num_heads
        mlp = layout.layers[0].dense
        activation = _ACTIVATIONS.index(type(mlp))
        self.numbers = (RMSNorm.eps, *norm, activation, mlp.inner_scale, mlp.outer_scale)

    def __call__(
        self, states: Float[Tensor, "b w"], place: Place, cache: KVCache, numbers: range
    ) -> Float[Tensor, "b w"]:
        """Return the states behind the layers; write keys and values."""
        turn = self.none if place.turn is None else place.turn.contiguous()
        hidden = self.none
        if place.mask is not None:
            assert isinstance(place.mask, Tensor)
            hidden = place.mask.expand(len(cache), 1, 1, -1).flatten(1).logical_not()
        parts = [part for number in numbers for part in self.parts[number]]
        return self.operator(
            states.contiguous(), parts, cache.entries[numbers.start : numbers.stop], turn, hidden,
            place.scale.contiguous(), cache.length, self.num_heads, *self.numbers,
        )  # fmt: skip

    def _parts(self, layer: DecodingLayer) -> list[Tensor]:
        assert layer.up is not None
        maps = [layer.incoming, layer.out, layer.up, layer.down]
        tensors = [part for each in maps for part in (each.weight, each.bias)]
        tensors.insert(4, layer.gain)
        return [self.none if tensor is None else tensor for tensor in tensors]


def _compiled(layout: Layout) -> CompiledLayers | str:
    """Return the layers compiled; why they are not, where they cannot be."""
    layers = layout.layers
    norms = {_norm(run) for layer in layers for run in (layer.attention_norm, layer.mlp_norm)}
    reason = next((why for layer in layers if (why := _why_not(layer, layout))), None)
    if reason is None and (None in norms or len(norms) > 1):
        reason = "norms are not all RMSNorm or all LayerNorm"
    operator = decoding_operator() if reason is None else reason
    if isinstance(operator, str):
        _log(operator)
        return operator
    norm = norms.pop()
    assert norm is not None
    return CompiledLayers(layout, operator, norm)


def _norm(norm: Callable[[Tensor], Tensor]) -> tuple[bool, float, float] | None:
    """Return whether a norm laid out subtracts the mean, its factor and eps; None if unknown."""
    if not isinstance(norm, partial):
        return None
    if norm.func is over_length:
        return False, 1.0, RMSNorm.eps
    (width,) = norm.keywords.get("normalized_shape", (0,))
    return (True, math.sqrt(width), norm.keywords["eps"]) if width else None


def _why_not(layer: DecodingLayer, layout: Layout) -> str | None:
    dtype = layer.incoming.weight.dtype
    if dtype not in (torch.float32, torch.float64):
        return f"weights are {dtype}, neither torch.float32 nor torch.float64"
    if layout.is_modulated:
        return "the context modulates the layers"
    if layer.attention_post_norm is not None or layer.mlp_post_norm is not None:
        return "branches are normalised"
    if layer.up is None or type(layer.mlp) not in _ACTIVATIONS:
        return f"{type(layer.mlp).__name__} is no MLP of ours"
    return None


@cache
def _log(reason: str) -> None:
    logger.warning("compile: %s, so sampling runs uncompiled", reason)
