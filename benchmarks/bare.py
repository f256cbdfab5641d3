"""The matrix work of a flow and nothing else: Linear, SDPA, RMSNorm, GELU and residual sums.

No positions, no scan order, no start, no transform, no log-determinant: what a transformer of the
same shapes costs. It uses the very weights of our flow, PyTorch's own functions, and the norms of
queries and keys, which are RMS norms like the others.
"""

import torch
import torch.nn.functional as F

from pretzel.flow import AFBlock, FlowStack
from pretzel.flow.context import PrefixContext
from pretzel.flow.mlp import MLP
from pretzel.flow.norms import RMSNorm
from pretzel.flow.transformer import CausalTransformer
from pretzel.flow.transformer_layer import Attention, Layer
from pretzel.typing import Float, Tensor


def run(
    stack: FlowStack, x: Float[Tensor, "b n d"], text: Float[Tensor, "b l w"] | None
) -> Float[Tensor, "b n d"]:
    """Send x through the layers of every block; the first outputs of a head are the next x."""
    for block in stack:
        assert isinstance(block, AFBlock)
        h = block.input(x)
        if isinstance(block.context, PrefixContext):
            assert text is not None
            h = torch.cat([block.context.linear(text), h], dim=1)
        transformer = block.conditioner
        assert isinstance(transformer, CausalTransformer)
        for layer in transformer.layers:
            assert isinstance(layer, Layer)
            h = _layer(layer, h)
        h = _norm(transformer.final_norm, h)
        x = block.head(h[:, -x.shape[1] :])[..., : x.shape[2]]
    return x


def _layer(layer: Layer, h: Float[Tensor, "b l w"]) -> Float[Tensor, "b l w"]:
    h = h + _attention(layer.attention, _norm(layer.attention_norm, h))
    assert isinstance(layer.mlp, MLP)
    hidden = F.gelu(layer.mlp.up(_norm(layer.mlp_norm, h)))
    out: Tensor = h + layer.mlp.down(hidden)
    return out


def _attention(attention: Attention, h: Float[Tensor, "b l w"]) -> Float[Tensor, "b l w"]:
    b, length, _ = h.shape
    heads = attention.qkv(h).view(b, length, 3, attention.num_heads, attention.head_dim)
    query, key, value = heads.permute(2, 0, 3, 1, 4)
    query = _norm(attention.query_norm, query)
    key = _norm(attention.key_norm, key)
    y = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    out: Tensor = attention.out(y.transpose(1, 2).reshape(b, length, -1))
    return out


def _norm(norm: object, x: Float[Tensor, "*b w"]) -> Float[Tensor, "*b w"]:
    assert isinstance(norm, RMSNorm)
    return F.rms_norm(x, norm.weight.shape, norm.weight, norm.eps)
