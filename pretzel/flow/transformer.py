"""The causal transformer of every flow block: pre-norm, RoPE, QK norm, SDPA.

With equal-length or right-padded rows attention runs with ``is_causal`` and no mask is ever
materialised. With a cache the caller gives a mask where rows are padded; a single step over
unpadded rows needs none.
"""

import torch
import torch.nn.functional as F
from torch import nn

from pretzel.errors import UserError
from pretzel.flow.positions import rotate
from pretzel.sampling.cache import KVCache
from pretzel.typing import Bool, Float, Tensor

Rotation = tuple[Tensor, Tensor]


class RMSNorm(nn.Module):
    """Root-mean-square norm with a learned gain (arXiv 1910.07467), at least in float32.

    Args:
        width: Channels normalised over.
        eps: Added to the mean square.
    """

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*b w"]) -> Float[Tensor, "*b w"]:
        """Normalise the last axis."""
        wide = torch.promote_types(x.dtype, torch.float32)
        return F.rms_norm(x.to(wide), self.weight.shape, self.weight.to(wide), self.eps).to(x.dtype)


class Attention(nn.Module):
    """Causal multi-head self-attention with a norm on queries and keys before RoPE.

    Args:
        width: Channels in and out.
        head_dim: Channels of a head.
    """

    def __init__(self, *, width: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads = width // head_dim
        self.head_dim = head_dim
        self.qkv = nn.Linear(width, 3 * width)
        self.query_norm = RMSNorm(head_dim)
        self.key_norm = RMSNorm(head_dim)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "b l w"],
        rotation: Rotation,
        mask: Bool[Tensor, "b 1 l k"] | None,
        cache: KVCache | None,
        layer: int,
    ) -> Float[Tensor, "b l w"]:
        """Attend; with a cache, write the new keys and values of ``layer`` first."""
        b, length, _ = x.shape
        heads = self.qkv(x).view(b, length, 3 * self.num_heads, self.head_dim)
        query, key, value = heads.transpose(1, 2).chunk(3, dim=1)
        query = rotate(self.query_norm(query), *rotation)
        key = rotate(self.key_norm(key), *rotation)
        causal = mask is None and length > 1
        if cache is not None:
            # is_causal aligns top-left: right only while the cache is empty.
            assert not causal or cache.length == 0
            key, value = cache.write(layer, key, value)
        y = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
        y = y.transpose(1, 2).reshape(b, length, self.num_heads * self.head_dim)
        out: Tensor = self.out(y)
        return out


class Layer(nn.Module):
    """One pre-norm residual layer: attention, then a GELU MLP.

    Args:
        width: Channels of the residual stream.
        head_dim: Channels of a head.
        mlp_ratio: Hidden size of the MLP over ``width``.
    """

    def __init__(self, *, width: int, head_dim: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.attention_norm = RMSNorm(width)
        self.attention = Attention(width=width, head_dim=head_dim)
        self.mlp_norm = RMSNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(
        self,
        x: Float[Tensor, "b l w"],
        rotation: Rotation,
        mask: Bool[Tensor, "b 1 l k"] | None,
        cache: KVCache | None,
        layer: int,
    ) -> Float[Tensor, "b l w"]:
        """Add the two branches to the residual stream."""
        x = x + self.attention(self.attention_norm(x), rotation, mask, cache, layer)
        out: Tensor = x + self.mlp(self.mlp_norm(x))
        return out


class CausalTransformer(nn.Module):
    """A stack of causal layers with a final norm.

    Args:
        width: Channels of the residual stream.
        num_layers: Layers.
        head_dim: Channels of a head; it must divide ``width``.
        mlp_ratio: Hidden size of the MLPs over ``width``.

    Raises:
        UserError: If ``head_dim`` does not divide ``width``.
    """

    def __init__(
        self, *, width: int, num_layers: int, head_dim: int, mlp_ratio: float = 4.0
    ) -> None:
        super().__init__()
        if width % head_dim:
            raise UserError(f"head_dim must divide width={width}, got {head_dim}")
        self.width = width
        self.num_heads = width // head_dim
        self.head_dim = head_dim
        self.layers = nn.ModuleList(
            [Layer(width=width, head_dim=head_dim, mlp_ratio=mlp_ratio) for _ in range(num_layers)]
        )
        self.final_norm = RMSNorm(width)
        self.apply(self._initialise)
        # Branch outputs start small so that depth does not change the scale of the stream.
        for layer in self.layers:
            assert isinstance(layer, Layer)
            for linear in (layer.attention.out, layer.mlp[2]):
                assert isinstance(linear, nn.Linear)
                nn.init.normal_(linear.weight, std=0.02 / (2 * num_layers) ** 0.5)

    @staticmethod
    def _initialise(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5 * 0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(
        self,
        x: Float[Tensor, "b l w"],
        rotation: Rotation,
        mask: Bool[Tensor, "b 1 l k"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "b l w"]:
        """Run the layers; with a cache, the new positions are committed to it.

        Args:
            x: Input of the new positions.
            rotation: Cosines and sines of their positions.
            mask: True where a query may attend a key; all keys of the cache, new ones last.
            cache: Keys and values of the positions before.
        """
        for index, layer in enumerate(self.layers):
            x = layer(x, rotation, mask, cache, index)
        if cache is not None:
            cache.commit(x.shape[1])
        out: Tensor = self.final_norm(x)
        return out

    def new_cache(self, batch_size: int, max_length: int) -> KVCache:
        """Return an empty cache for this transformer."""
        return KVCache(
            num_layers=len(self.layers),
            batch_size=batch_size,
            num_heads=self.num_heads,
            max_length=max_length,
            head_dim=self.head_dim,
            like=self.final_norm.weight,
        )
