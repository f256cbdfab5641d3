"""Transformer layers behind a cache while no gradients are recorded: sampling and prefilling.

Small products are bound by calls and by how weights lie in memory. A layer's weights are therefore
laid out once for each cache: transposed, the gains of RMS norms multiplied in, maps of one input
side by side, channel pairs of rotary heads next to each other. The mathematics is that of
:class:`~pretzel.flow.transformer_layer.Layer`, to rounding, and a law compares the two. What is
not known by its very type (a norm, an MLP) is called as it is; what cannot be laid out (an
attention or a linear map of another class, a module with hooks) leaves the layer to its own code.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache as once
from functools import partial
from typing import NamedTuple, TypeGuard

import torch
import torch.nn.functional as F
from torch import nn

from pretzel.flow.cache import KVCache, paired
from pretzel.flow.conditioner import Rotation
from pretzel.flow.mlp import DenseFeedForward
from pretzel.flow.norms import LayerNorm, RMSNorm, over_length
from pretzel.flow.precision import at_least_float32, is_autocast
from pretzel.flow.transformer_layer import Attention, Layer
from pretzel.sequence.masks import Mask, attend
from pretzel.typing import Complex, Float, Int, Tensor

logger = logging.getLogger(__name__)

_FEW_ROWS = 16
"""Rows up to which the hidden values of an MLP are bound by calls."""

Turn = Complex[Tensor, "*b l 1 p"]
"""Rotation of each channel pair, as a complex number."""


class Product(NamedTuple):
    """An affine map of rows, its matrix [in, out]."""

    weight: Float[Tensor, "i o"]
    bias: Float[Tensor, " o"] | None

    def __call__(
        self, x: Float[Tensor, "n i"], scale: float = 1.0, out: Tensor | None = None
    ) -> Float[Tensor, "n o"]:
        """Return scale (x W + b)."""
        if self.bias is None:
            product = torch.mm(x, self.weight, out=out)
            return product if scale == 1 else product.mul_(scale)
        return torch.addmm(self.bias, x, self.weight, beta=scale, alpha=scale, out=out)

    def added_to(
        self, y: Float[Tensor, "n o"], x: Float[Tensor, "n i"], scale: float = 1.0
    ) -> Float[Tensor, "n o"]:
        """Return y + scale x W + b."""
        out = torch.addmm(y, x, self.weight, alpha=scale)
        return out if self.bias is None else out.add_(self.bias)


class Scratch:
    """Memory of one layer's attention for the new positions of all rows, with its views.

    Attributes:
        product: Queries, keys, values and gates of the heads, side by side.
        pairs: Queries and keys in it.
        turned: The same in float32 at least, where they are normalised and rotated.
        complex_pairs: Channel pairs of ``turned`` as complex numbers; None for heads of odd width.
        source: Queries in ``product``.
        query: Memory for them, scaled.
        groups: The same, of one position: those that read the same keys together.
        output: Shape of what the heads read, side by side.
        entries: Keys and values in ``product``, as a cache takes them.
        gate: Gates in ``product``.
    """

    def __init__(self, attention: Attention, product: Float[Tensor, "n o"], num_rows: int) -> None:
        count, kv, width = attention.num_heads, attention.num_kv_heads, attention.head_dim
        heads = product.view(num_rows, -1, product.shape[1] // width, width)
        self.product = product
        self.pairs = heads.narrow(2, 0, count + kv)
        self.turned = self.pairs.to(at_least_float32(product))
        self.complex_pairs: Tensor | None = None
        if width % 2 == 0:
            halves = self.turned.view(*self.turned.shape[:3], width // 2, 2)
            self.complex_pairs = torch.view_as_complex(halves)
        self.source = heads.narrow(2, 0, count)
        self.query = torch.empty_like(self.source, memory_format=torch.contiguous_format)
        self.groups = self.query.view(num_rows * kv, -1, width) if heads.shape[1] == 1 else None
        self.output = (product.shape[0], count * width)
        entries = heads.narrow(2, count, 2 * kv)
        self.entries = entries.view(*heads.shape[:2], 2, kv, width).permute(2, 0, 3, 1, 4)
        self.gate = heads.narrow(2, count + 2 * kv, heads.shape[2] - count - 2 * kv)


@dataclass(frozen=True, kw_only=True)
class Place:
    """New positions behind those of a cache.

    Attributes:
        slots: Their places in the cache.
        end: Number of positions in the cache, the new ones included.
        turn: Their rotation; None without.
        mask: Which position may read another; None for causal reading.
        scale: Factor of the queries.
        scratch: Memory for them.
    """

    slots: Int[Tensor, " l"]
    end: int
    turn: Turn | None
    mask: Mask | None
    scale: Float[Tensor, "*s"]
    scratch: Scratch


class DecodingLayer:
    """One layer, its weights laid out as they are now."""

    def __init__(self, layer: Layer, *, is_modulated: bool) -> None:
        attention, mlp = layer.attention, layer.mlp
        norm = _unit_norm(layer.attention_norm, is_modulated)
        self.attention_norm = norm.run
        self.is_gated = attention.gate is not None
        incoming = [attention.qkv] if attention.gate is None else [attention.qkv, attention.gate]
        counts = [attention.num_heads, attention.num_kv_heads]
        width = attention.head_dim
        order = torch.arange(sum(linear.out_features for linear in incoming))
        turned = sum(counts) * width
        order = torch.cat([paired(order[:turned].view(-1, width)).flatten(), order[turned:]])
        order = order.to(attention.qkv.weight.device)
        self.incoming = product(incoming, norm.gain, norm.offset, order=order)
        self.out = product([attention.out])
        self.gain: Tensor | None = None
        if attention.query_norm is not None and attention.key_norm is not None:
            norms = attention.query_norm, attention.key_norm
            gains = [norm.get_parameter("weight").detach() for norm in norms]
            gain = torch.cat([g.expand(n, -1) for g, n in zip(gains, counts, strict=True)])
            self.gain = paired(gain.to(at_least_float32(gain)) * math.sqrt(width))
            self.smallest = self.gain.new_tensor(math.sqrt(width * RMSNorm.eps))
        self.attention_post_norm = layer.attention_post_norm
        norm = _unit_norm(layer.mlp_norm, is_modulated)
        self.mlp_norm = norm.run
        self.mlp_post_norm = layer.mlp_post_norm
        self.mlp = mlp
        self.up: Product | None = None
        if _is_dense(mlp):
            inner, outer = mlp.inner_scale, mlp.outer_scale
            self.up = product(mlp.incoming, norm.gain, norm.offset, scale=inner)
            self.down = product([mlp.down], outer)
            self.num_maps, self.dense = len(mlp.incoming), mlp
        else:
            self.mlp_norm = layer.mlp_norm

    def __call__(
        self,
        x: Float[Tensor, "n w"],
        place: Place,
        cache: KVCache,
        number: int,
        modulation: Float[Tensor, "b 6 1 w"] | None,
    ) -> Float[Tensor, "n w"]:
        """Add both branches to the residual stream of all rows' positions."""
        if modulation is None and self.attention_post_norm is None:
            heads = self._heads(self.attention_norm(x), place, cache, number)
            x = self.out.added_to(x, heads)
        else:
            h = _modulated(self.attention_norm(x), modulation, 0)
            h = self.out(self._heads(h, place, cache, number))
            x = x + _gated(h, self.attention_post_norm, modulation, 2)
        h = _modulated(self.mlp_norm(x), modulation, 3)
        if self.up is None:
            h = self.mlp(h.view(len(cache), -1, h.shape[1])).view_as(h)
            return x + _gated(h, self.mlp_post_norm, modulation, 5)
        mlp, scale = self.dense, 1.0
        if h.shape[0] > _FEW_ROWS:
            up, hidden, scale = self.up(h, 1 / mlp.inner_scale), mlp.hidden, 1 / mlp.outer_scale
        else:
            up, hidden = self.up(h), mlp.scaled_hidden
        inner = hidden(up) if self.num_maps == 1 else hidden(*up.chunk(self.num_maps, 1))
        if modulation is None and self.mlp_post_norm is None:
            return self.down.added_to(x, inner, scale)
        h = self.down.added_to(torch.zeros_like(x), inner, scale)
        return x + _gated(h, self.mlp_post_norm, modulation, 5)

    def _heads(
        self, h: Float[Tensor, "n w"], place: Place, cache: KVCache, number: int
    ) -> Float[Tensor, "n v"]:
        """Return what the heads read, gated, before the output map; write keys and values."""
        scratch = place.scratch
        turned, is_copy = scratch.turned, scratch.turned.dtype != h.dtype
        self.incoming(h, out=scratch.product)
        if is_copy:
            turned.copy_(scratch.pairs)
        if self.gain is not None:
            over_length(turned, self.smallest, out=turned).mul_(self.gain)
        if place.turn is not None:
            assert scratch.complex_pairs is not None
            scratch.complex_pairs.mul_(place.turn)
        if is_copy:
            scratch.pairs.copy_(turned)
        stored = cache.layers[number]
        stored.entries.index_copy_(3, place.slots, scratch.entries)
        query = torch.mul(scratch.source, place.scale, out=scratch.query)
        if scratch.groups is None or is_copy:
            keys, values = stored.entries.narrow(3, 0, place.end)
            y = attend(query.transpose(1, 2), keys, values, place.mask, scale=1.0)
            y = y.transpose(1, 2).reshape(scratch.output)
        else:
            # Two products and a softmax read keys and values faster than SDPA for one query.
            scores = torch.bmm(scratch.groups, stored.keys.narrow(2, 0, place.end))
            if place.mask is not None:
                assert isinstance(place.mask, Tensor)
                of_rows = scores.view(len(cache), -1, place.end)
                of_rows.masked_fill_(~place.mask[:, 0], -math.inf)
            y = torch.bmm(scores.softmax(-1), stored.values.narrow(1, 0, place.end))
            y = y.view(scratch.output)
        return y * scratch.gate.reshape(scratch.output).sigmoid() if self.is_gated else y


class Layout:
    """The layers of a transformer laid out, and memory for the new positions of a call."""

    def __init__(
        self,
        layers: nn.ModuleList,
        final_norm: nn.Module | None,
        max_length: int,
        *,
        is_modulated: bool,
    ) -> None:
        self.is_modulated = is_modulated
        self.layers = [DecodingLayer(layer, is_modulated=is_modulated) for layer in layers]  # type: ignore[arg-type]
        self.final_norm: Callable[[Tensor], Tensor] | None = None
        if final_norm is not None:
            is_offset = type(final_norm) is LayerNorm  # which the head does not take in
            norm = _unit_norm(final_norm, is_modulated=is_offset)
            self.final_norm, self.final_gain = norm.run, norm.gain
        attention = layers[0].attention
        assert isinstance(attention, Attention)
        self.attention = attention
        self.scale = attention.qkv.weight.new_tensor(attention.head_dim**-0.5)
        self.slots = torch.arange(max_length, device=attention.qkv.weight.device)
        self.scratch: Scratch | None = None
        self.numbers = range(len(self.layers))
        self.compiled: object = None  # made where it is asked for (pretzel.flow.compiled_decoding)

    def place(
        self, cache: KVCache, length: int, rotation: Rotation | None, mask: Mask | None
    ) -> Place:
        """Return the place of new positions.

        Raises:
            ValueError: If they do not fit.
        """
        end = cache.end(length)
        scale = self.scale if cache.query_scale is None else self.scale * cache.query_scale
        scratch, rows = self.scratch, len(cache)
        if scratch is None or scratch.source.shape[:2] != (rows, length):
            with torch.inference_mode(mode=False):
                weight = self.layers[0].incoming.weight
                product = weight.new_empty(rows * length, weight.shape[1])
                self.scratch = scratch = Scratch(self.attention, product, rows)
        slots = self.slots.narrow(0, cache.length, length)
        turn = _turn(rotation)
        return Place(slots=slots, end=end, turn=turn, mask=mask, scale=scale, scratch=scratch)

    def finish(self, h: Float[Tensor, "b l w"]) -> Float[Tensor, "b l w"]:
        """Apply the final norm."""
        if self.final_norm is None:
            return h
        h = self.final_norm(h)
        return h if isinstance(self.final_gain, float) else (h * self.final_gain).to(h.dtype)


def layout_of(
    layers: nn.ModuleList, final_norm: nn.Module | None, cache: KVCache, *, is_modulated: bool
) -> Layout | None:
    """Return the layers laid out for a cache, made at its first use; None if one cannot be.

    Only on a CPU: an accelerator's weights are not held twice.
    """
    entries = cache.entries
    if torch.is_grad_enabled() or not entries.is_cpu or is_autocast(entries.device) or not layers:
        return None
    if not isinstance(cache.layout, Layout) or cache.layout.is_modulated != is_modulated:
        reasons = [why for layer in layers if (why := _why_not(layer, entries.dtype))]
        if reasons:
            _log(reasons[0])
            return None
        with torch.inference_mode(mode=False), torch.no_grad():
            length = cache.max_length
            cache.layout = Layout(layers, final_norm, length, is_modulated=is_modulated)
    return cache.layout


def with_turn(rotation: Rotation) -> Rotation:
    """Return a rotation with the complex numbers that layers laid out multiply by."""
    cosine, sine = rotation[:2]
    half, dtype = cosine.shape[-1] // 2, at_least_float32(cosine)
    return cosine, sine, torch.complex(cosine[..., :half].to(dtype), sine[..., half:].to(dtype))


def _turn(rotation: Rotation | None) -> Turn | None:
    if rotation is None:
        return None
    rotation = rotation if len(rotation) > 2 else with_turn(rotation)
    return rotation[2].transpose(-2, -3)


@once
def _log(reason: str) -> None:
    logger.info("%s: sampling runs the layer's own code, which is slower on a CPU", reason)


def _why_not(layer: nn.Module, dtype: torch.dtype) -> str | None:
    """Return why a layer cannot be laid out; None if it can."""
    attention = getattr(layer, "attention", None)
    if type(layer) is not Layer or type(attention) is not Attention:
        return f"{type(layer).__name__} with {type(attention).__name__} is no layer of ours"
    assert isinstance(attention, Attention)
    for linear in (attention.qkv, attention.out, attention.gate):
        if linear is not None and type(linear) is not nn.Linear:
            return f"{type(linear).__name__} is not Linear"
    if attention.qkv.weight.dtype != dtype:
        return f"a cache of {dtype} is not of the weights' {attention.qkv.weight.dtype}"
    for norm in (attention.query_norm, attention.key_norm):
        if norm is not None and type(norm) is not RMSNorm:
            return f"{type(norm).__name__} of queries and keys is not RMSNorm"
    if any(module._forward_hooks or module._forward_pre_hooks for module in layer.modules()):
        return f"{type(layer).__name__} has hooks"
    return None


class UnitNorm(NamedTuple):
    """A norm less what goes into the weights behind it: run(x) gain + offset."""

    run: Callable[[Tensor], Tensor]
    gain: Float[Tensor, " i"] | float = 1.0
    offset: Float[Tensor, " i"] | None = None


def _unit_norm(norm: nn.Module, is_modulated: bool) -> UnitNorm:
    if is_modulated or type(norm) not in (RMSNorm, LayerNorm):
        return UnitNorm(norm)
    assert isinstance(norm, (RMSNorm, LayerNorm))
    weight = norm.weight.detach().to(at_least_float32(norm.weight))
    is_wide = weight.dtype == norm.weight.dtype
    if isinstance(norm, LayerNorm):
        if not is_wide:
            return UnitNorm(norm)
        centred = partial(F.layer_norm, normalized_shape=weight.shape, eps=norm.eps)
        return UnitNorm(centred, weight, norm.bias.detach())
    root = math.sqrt(len(weight))
    smallest = weight.new_tensor(root * math.sqrt(norm.eps))
    return UnitNorm(
        partial(over_length if is_wide else _in_float32, smallest=smallest), root * weight
    )


def _is_dense(mlp: nn.Module) -> TypeGuard[DenseFeedForward]:
    return (
        isinstance(mlp, DenseFeedForward)
        and type(mlp).forward is DenseFeedForward.forward
        and all(type(linear) is nn.Linear for linear in (*mlp.incoming, mlp.down))
    )


def _in_float32(x: Float[Tensor, "*n w"], smallest: Float[Tensor, ""]) -> Float[Tensor, "*n w"]:
    return over_length(x.float(), smallest).to(x.dtype)


def product(
    linears: list[nn.Linear],
    gain: Tensor | float = 1.0,
    offset: Float[Tensor, " i"] | None = None,
    *,
    scale: float = 1.0,
    order: Int[Tensor, " o"] | None = None,
) -> Product:
    """Lay linear maps of x gain + offset out side by side, their outputs scaled."""
    weights = [linear.weight.detach() for linear in linears]
    weight = weights[0] if len(weights) == 1 else torch.cat(weights)
    biases = [linear.bias.detach() for linear in linears if linear.bias is not None]
    bias = torch.cat(biases) if biases else None
    if offset is not None:
        of_offset = weight @ offset
        bias = of_offset if bias is None else bias + of_offset
    bias = None if bias is None else scale * bias
    if order is not None:
        weight, bias = weight[order], None if bias is None else bias[order]
    factor = scale * gain if isinstance(gain, float) else scale * gain[:, None]
    out = torch.empty_like(weight.t(), memory_format=torch.contiguous_format)
    return Product(out.copy_(weight.t()).mul_(factor), bias)


def _modulated(h: Tensor, modulation: Float[Tensor, "b 6 1 w"] | None, first: int) -> Tensor:
    """Shift and scale; ``first`` is the number of the shift."""
    if modulation is None:
        return h
    rows = h.view(len(modulation), -1, h.shape[-1])
    out: Tensor = torch.addcmul(rows + modulation[:, first], rows, modulation[:, first + 1])
    return out.view_as(h)


def _gated(
    h: Tensor,
    norm: nn.Module | None,
    modulation: Float[Tensor, "b 6 1 w"] | None,
    number: int,
) -> Tensor:
    """Normalise and gate what a branch adds."""
    h = h if norm is None else norm(h)
    if modulation is None:
        return h
    rows = h.view(len(modulation), -1, h.shape[-1])
    out: Tensor = rows + rows * modulation[:, number]
    return out.view_as(h)
