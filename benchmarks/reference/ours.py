"""The reference over the very weights of our blocks."""

import torch

from benchmarks.reference.network import Block, Layer, Linear, Norm
from pretzel.flow.af_block import AFBlock
from pretzel.flow.context import PrefixContext
from pretzel.flow.mlp import MLP
from pretzel.flow.norms import RMSNorm
from pretzel.flow.positions import AxialPositions
from pretzel.flow.start_token import StartToken
from pretzel.flow.transformer import CausalTransformer
from pretzel.flow.transformer_layer import Attention
from pretzel.flow.transformer_layer import Layer as OurLayer
from pretzel.flow.transforms import AffineSoftplus


def from_block(block: AFBlock, num_text: int = 0) -> Block:
    """Return the reference over the very weights of one of our blocks.

    Args:
        block: A block of default parts, with a text before the image or without context.
        num_text: Text states before the image.
    """
    transformer, positions = block.conditioner, block.positions
    assert isinstance(block.transform, AffineSoftplus)
    assert isinstance(transformer, CausalTransformer)
    assert isinstance(positions, AxialPositions)
    assert isinstance(block.start, StartToken)
    assert positions.rotary is not None
    assert block.context is None or isinstance(block.context, PrefixContext)
    layers = [layer for layer in transformer.layers if isinstance(layer, OurLayer)]
    places, prefix = block.coordinates, None
    if block.context is not None:
        text = positions.text_places(num_text, places.shape[1] + 1).to(places)
        places = torch.cat([text, positions.image_places(places, num_text)])
        prefix = Linear(weight=block.context.linear.weight, bias=block.context.linear.bias)
    return Block(
        order=block.order,
        layers=[_our_layer(layer) for layer in layers],
        head_dim=transformer.head_dim,
        inputs=Linear(weight=block.input.weight, bias=block.input.bias),
        first=block.start.token,
        embedding=positions.embed(block.coordinates),
        final_norm=_our_norm(transformer.final_norm),
        head=Linear(weight=block.head.weight, bias=block.head.bias),
        angles=places.to(positions.rotary.frequencies) @ positions.rotary.frequencies,
        interleaved=False,
        min_scale=block.transform.min_scale,
        prefix=prefix,
    )


def _our_norm(norm: object) -> Norm:
    assert isinstance(norm, RMSNorm)
    return Norm(gain=norm.weight)


def _our_layer(layer: OurLayer) -> Layer:
    attention, mlp = layer.attention, layer.mlp
    assert isinstance(attention, Attention)
    assert isinstance(mlp, MLP)
    return Layer(
        attention_norm=_our_norm(layer.attention_norm),
        qkv=Linear(weight=attention.qkv.weight, bias=attention.qkv.bias),
        proj=Linear(weight=attention.out.weight, bias=attention.out.bias),
        query_norm=_our_norm(attention.query_norm),
        key_norm=_our_norm(attention.key_norm),
        mlp_norm=_our_norm(layer.mlp_norm),
        up=Linear(weight=mlp.up.weight, bias=mlp.up.bias),
        down=Linear(weight=mlp.down.weight, bias=mlp.down.bias),
    )
