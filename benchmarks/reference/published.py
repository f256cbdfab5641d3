"""The reference over the weights of the public STARFlow."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F

from benchmarks.reference.network import Block, Layer, Linear, Norm
from pretzel.typing import Float, Tensor


def from_published(
    state: Mapping[str, Tensor],
    *,
    num_layers: int,
    head_dim: int,
    grid: tuple[int, int],
    training_side: int,
    num_text: int | None,
    sees_text: bool,
    flip: bool,
    soft_clip: float,
) -> Block:
    """Return a block over a published STARFlow state dict.

    Args:
        state: Parameters of one block.
        num_layers: Its layers.
        head_dim: Channels of a head.
        grid: Rows and columns of the image.
        training_side: Side of the grid that rotary positions are scaled to.
        num_text: Text tokens before the image; None for a model that knows no text.
        sees_text: Whether this block is given them.
        flip: Whether it scans backwards.
        soft_clip: Soft clip of the raw parameters.
    """
    state = dict(state)
    inputs = _linear(state, "proj_in")
    n = math.prod(grid)
    angles = published_angles(grid, head_dim, training_side, num_text)
    order = torch.arange(n)
    return Block(
        order=order.flip(0) if flip else order,
        layers=[_published_layer(state, f"attn_blocks.{i}.") for i in range(num_layers)],
        head_dim=head_dim,
        inputs=inputs,
        first=inputs(state["sos_embed"].flatten()),
        embedding=None,
        final_norm=_norm(state, "final_norm"),
        head=_linear(state, "proj_out"),
        angles=angles if sees_text or num_text is None else angles[num_text:],
        interleaved=True,
        soft_clip=soft_clip,
        prefix=_linear(state, "proj_txt") if sees_text else None,
    )


def published_angles(
    grid: tuple[int, int], head_dim: int, side: int, num_text: int | None
) -> Float[Tensor, "l a"]:
    """Return STARFlow's rotary angles: text first, then raster order, whatever the scan order."""
    rows, columns = (axis.flatten() for axis in torch.meshgrid(
        *(torch.arange(size, dtype=torch.float64) for size in grid), indexing="ij"))  # fmt: skip
    pairs = head_dim // 2 - (0 if num_text is None else 8)
    frequencies = 10000.0 ** (-2 * torch.arange(pairs // 2, dtype=torch.float64) / max(pairs, 1))
    scale = side / math.sqrt(math.prod(grid))
    image = torch.cat([axis[:, None] * scale * frequencies for axis in (rows, columns)], dim=1)
    if num_text is None:
        return image
    places = torch.arange(num_text, dtype=torch.float64) / max(num_text, 1) * side
    of_text = places[:, None] * 10000.0 ** (-torch.arange(8, dtype=torch.float64) / 8)
    return torch.cat([F.pad(of_text, (image.shape[1], 0)), F.pad(image, (0, 8))])


def _published_layer(state: Mapping[str, Tensor], prefix: str) -> Layer:
    attention, mlp = f"{prefix}attention.", f"{prefix}mlp."
    gated = f"{mlp}gate_proj.weight" in state
    return Layer(
        attention_norm=_norm(state, f"{attention}norm"),
        qkv=_linear(state, f"{attention}qkv"),
        proj=_linear(state, f"{attention}proj"),
        query_norm=_optional_norm(state, f"{attention}query_norm"),
        key_norm=_optional_norm(state, f"{attention}key_norm"),
        attention_post_norm=_optional_norm(state, f"{attention}post_norm"),
        mlp_norm=_norm(state, f"{mlp}norm"),
        gate=_linear(state, f"{mlp}gate_proj") if gated else None,
        up=_linear(state, f"{mlp}up_proj" if gated else f"{mlp}main.0"),
        down=_linear(state, f"{mlp}down_proj" if gated else f"{mlp}main.2"),
        mlp_post_norm=_optional_norm(state, f"{mlp}post_norm"),
    )


def _norm(state: Mapping[str, Tensor], name: str) -> Norm:
    bias = state.get(f"{name}.bias")
    weight = state[f"{name}.weight"]
    # The published RMS norm stores its gain as an offset from one.
    return Norm(gain=weight, bias=bias) if bias is not None else Norm(gain=1 + weight)


def _optional_norm(state: Mapping[str, Tensor], name: str) -> Norm | None:
    return _norm(state, name) if f"{name}.weight" in state else None


def _linear(state: Mapping[str, Tensor], name: str) -> Linear:
    return Linear(weight=state[f"{name}.weight"], bias=state.get(f"{name}.bias"))
