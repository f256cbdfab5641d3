"""A layer of the causal transformer: attention and an MLP on a residual stream."""

import torch
from torch import nn

from pretzel.flow.cache import KVCache, paired
from pretzel.flow.conditioner import Rotation
from pretzel.flow.norms import NormFactory
from pretzel.flow.positions import rotate
from pretzel.sequence.masks import Mask, attend
from pretzel.typing import Float, Tensor


class Attention(nn.Module):
    """Causal multi-head self-attention; its options are those of :class:`CausalTransformer`.

    ``norm`` is that of queries and keys before RoPE.
    """

    def __init__(
        self,
        *,
        width: int,
        head_dim: int,
        num_heads: int,
        num_kv_heads: int,
        norm: NormFactory | None,
        bias: bool,
        gated: bool,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads
        self.head_dim = head_dim
        self.qkv = nn.Linear(width, (num_heads + 2 * num_kv_heads) * head_dim, bias=bias)
        self.query_norm = None if norm is None else norm(head_dim)
        self.key_norm = None if norm is None else norm(head_dim)
        self.gate = nn.Linear(width, num_heads * head_dim, bias=bias) if gated else None
        self.out = nn.Linear(num_heads * head_dim, width, bias=bias)

    def forward(
        self,
        x: Float[Tensor, "b l w"],
        rotation: Rotation | None,
        mask: Mask | None,
        cache: KVCache | None,
        layer: int,
    ) -> Float[Tensor, "b l w"]:
        """Attend; with a cache, write the new keys and values of ``layer`` first."""
        b, length, _ = x.shape
        count = self.num_heads + 2 * self.num_kv_heads
        heads = self.qkv(x).view(b, length, count, self.head_dim).transpose(1, 2)
        query, key, value = self._query_key_value(heads, rotation)
        if cache is not None:
            if cache.query_scale is not None:
                query = query * cache.query_scale
            query, key = paired(query), paired(key)
            key, value = cache.write(layer, key, value)
        y = attend(query, key, value, mask)
        y = y.transpose(1, 2).reshape(b, length, self.num_heads * self.head_dim)
        if self.gate is not None:
            y = y * self.gate(x).sigmoid()
        out: Tensor = self.out(y)
        return out

    def _query_key_value(
        self, heads: Float[Tensor, "b heads l e"], rotation: Rotation | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries and keys, normalised and rotated, and values."""
        counts = [self.num_heads, self.num_kv_heads]
        query, key, value = torch.split(heads, [*counts, self.num_kv_heads], dim=1)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        if rotation is not None:
            cosine, sine = rotation[:2]
            query, key = rotate(query, cosine, sine), rotate(key, cosine, sine)
        return query, key, value


class Layer(nn.Module):
    """One residual layer: attention, then an MLP, each behind a norm of its own.

    ``post_norm`` makes the norm of each branch's output, before it is added.
    """

    def __init__(
        self,
        attention: Attention,
        mlp: nn.Module,
        *,
        width: int,
        pre_norm: NormFactory,
        post_norm: NormFactory | None,
    ) -> None:
        super().__init__()
        self.attention_norm = pre_norm(width)
        self.attention = attention
        self.attention_post_norm = None if post_norm is None else post_norm(width)
        self.mlp_norm = pre_norm(width)
        self.mlp = mlp
        self.mlp_post_norm = None if post_norm is None else post_norm(width)

    def forward(
        self,
        x: Float[Tensor, "b l w"],
        rotation: Rotation | None,
        mask: Mask | None,
        cache: KVCache | None,
        layer: int,
        modulation: Float[Tensor, "b 6 1 w"] | None,
    ) -> Float[Tensor, "b l w"]:
        """Add the two branches to the residual stream."""
        h = self.attention_norm(x)
        if modulation is not None:
            h = torch.addcmul(h + modulation[:, 0], h, modulation[:, 1])
        h = self.attention(h, rotation, mask, cache, layer)
        h = h if self.attention_post_norm is None else self.attention_post_norm(h)
        x = x + h if modulation is None else x + h + h * modulation[:, 2]
        h = self.mlp_norm(x)
        if modulation is not None:
            h = torch.addcmul(h + modulation[:, 3], h, modulation[:, 4])
        h = self.mlp(h)
        h = h if self.mlp_post_norm is None else self.mlp_post_norm(h)
        out: Tensor = x + h if modulation is None else x + h + h * modulation[:, 5]
        return out
