"""The network of a block: its weights, and a pass over them, with cached keys or without."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from pretzel.typing import Float, Int, Tensor


@dataclass(frozen=True, kw_only=True)
class Norm:
    """A layer norm (with a bias) or an RMS norm (without)."""

    gain: Tensor
    bias: Tensor | None = None

    def __call__(self, x: Float[Tensor, "*b w"]) -> Float[Tensor, "*b w"]:
        """Normalise the last axis."""
        if self.bias is not None:
            return F.layer_norm(x, self.gain.shape, self.gain, self.bias, 1e-5)
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.gain


@dataclass(frozen=True, kw_only=True)
class Linear:
    """An affine map."""

    weight: Tensor
    bias: Tensor | None = None

    def __call__(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        """Map the last axis."""
        return F.linear(x, self.weight, self.bias)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Weights of one residual layer; ``gate`` makes the MLP a gated one."""

    attention_norm: Norm
    qkv: Linear
    proj: Linear
    mlp_norm: Norm
    up: Linear
    down: Linear
    gate: Linear | None = None
    query_norm: Norm | None = None
    key_norm: Norm | None = None
    attention_post_norm: Norm | None = None
    mlp_post_norm: Norm | None = None


@dataclass(frozen=True, kw_only=True)
class Block:
    """One autoregressive block.

    Attributes:
        order: Scan order.
        layers: Residual layers.
        head_dim: Channels of a head.
        inputs: Map of a latent position into the network.
        first: Network input that stands for the position before the first.
        embedding: Added to the network input of each image position; None for nothing.
        final_norm: Norm before the head.
        head: Gives raw scale, then location, of each channel.
        angles: Rotary angles of every position, prefix first.
        interleaved: Whether angle m rotates channels (2m, 2m + 1) or (m, m + e/2).
        soft_clip: a tanh(x / a) on the raw parameters; 0 for none.
        min_scale: Lower bound of the scale.
        prefix: Map of the text before the image; None where the block sees none.
    """

    order: Int[Tensor, " n"]
    layers: Sequence[Layer]
    head_dim: int
    inputs: Linear
    first: Float[Tensor, " w"]
    embedding: Float[Tensor, "n w"] | None
    final_norm: Norm
    head: Linear
    angles: Float[Tensor, "l e"]
    interleaved: bool
    soft_clip: float = 0.0
    min_scale: float = 0.0
    prefix: Linear | None = None


@dataclass
class Cache:
    """Keys (not rotated) and values of every layer, one list entry a step."""

    keys: dict[int, list[Tensor]] = field(default_factory=dict)
    values: dict[int, list[Tensor]] = field(default_factory=dict)

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add a step; return everything so far, concatenated."""
        self.keys.setdefault(layer, []).append(key)
        self.values.setdefault(layer, []).append(value)
        return torch.cat(self.keys[layer], dim=2), torch.cat(self.values[layer], dim=2)

    @property
    def length(self) -> int:
        """Positions of the first layer so far."""
        return sum(key.shape[2] for key in self.keys.get(0, []))


def rotate(
    x: Float[Tensor, "b h l e"],
    cosine: Float[Tensor, "l a"],
    sine: Float[Tensor, "l a"],
    *,
    interleaved: bool,
) -> Float[Tensor, "b h l e"]:
    """Rotate channel pairs by the angles of each position."""
    if interleaved:
        u, v = x[..., 0::2], x[..., 1::2]
        return torch.stack([u * cosine - v * sine, v * cosine + u * sine], dim=-1).flatten(-2)
    u, v = x.chunk(2, dim=-1)
    return torch.cat([u * cosine - v * sine, v * cosine + u * sine], dim=-1)


def run(
    block: Block,
    h: Float[Tensor, "b l w"],
    rotation: tuple[Tensor, Tensor],
    cache: Cache | None = None,
) -> Float[Tensor, "b l w"]:
    """Run the layers over new positions; with a cache, behind those it holds.

    Args:
        block: The block.
        h: Inputs of the new positions.
        rotation: Cosines and sines of all positions.
        cache: Keys and values of the positions before.
    """
    start = cache.length if cache is not None else 0
    length = h.shape[1]
    mask = torch.ones(length, start + length, dtype=torch.bool).tril(start).to(h.device)
    for number, layer in enumerate(block.layers):
        branch = _attend(
            block, layer, layer.attention_norm(h), rotation, mask, cache, number, start
        )
        h = h + (layer.attention_post_norm(branch) if layer.attention_post_norm else branch)
        x = layer.mlp_norm(h)
        if layer.gate is None:
            branch = layer.down(F.gelu(layer.up(x)))
        else:
            branch = layer.down(F.gelu(layer.gate(x), approximate="tanh") * layer.up(x))
        h = h + (layer.mlp_post_norm(branch) if layer.mlp_post_norm else branch)
    return block.final_norm(h)


def _attend(
    block: Block,
    layer: Layer,
    x: Tensor,
    rotation: tuple[Tensor, Tensor],
    mask: Tensor,
    cache: Cache | None,
    number: int,
    start: int,
) -> Tensor:
    b, length, _ = x.shape
    heads = layer.qkv(x).view(b, length, -1, block.head_dim).transpose(1, 2)
    num_heads = layer.proj.weight.shape[1] // block.head_dim
    num_kv = (heads.shape[1] - num_heads) // 2
    query, key, value = torch.split(heads, [num_heads, num_kv, num_kv], dim=1)
    query = layer.query_norm(query) if layer.query_norm else query
    key = layer.key_norm(key) if layer.key_norm else key
    if cache is not None:
        key, value = cache.append(number, key, value)
    end = start + length
    cosine, sine = rotation
    query = rotate(query, cosine[start:end], sine[start:end], interleaved=block.interleaved)
    key = rotate(key, cosine[:end], sine[:end], interleaved=block.interleaved)
    if num_heads != num_kv:
        key = key.repeat_interleave(num_heads // num_kv, dim=1)
        value = value.repeat_interleave(num_heads // num_kv, dim=1)
    y = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return layer.proj(y.transpose(1, 2).flatten(2))
