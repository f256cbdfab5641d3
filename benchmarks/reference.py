"""A plain STARFlow, as the published code works, to measure our flow against.

Functional, over given weights, written from the mathematics alone (``tests/golden`` proves it):
in training a causal mask is materialised; in sampling keys are cached unrotated in lists, are
concatenated and all rotated again at every step, and sequences grow by concatenation. What costs it
nothing to do well it does well: cosines and sines are computed once a pass, and key heads are
repeated only where several query heads share one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from pretzel.flow.af_block import AFBlock
from pretzel.flow.context import PrefixContext
from pretzel.flow.mlp import MLP
from pretzel.flow.norms import RMSNorm
from pretzel.flow.positions import AxialPositions
from pretzel.flow.start import StartToken
from pretzel.flow.transformer import Attention, CausalTransformer
from pretzel.flow.transformer import Layer as OurLayer
from pretzel.flow.transforms import SOFTPLUS_ONE, AffineSoftplus
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


def parameters(
    block: Block, states: Float[Tensor, "*b w"]
) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b d"]]:
    """Return scale and location of states."""
    raw = block.head(states)
    if block.soft_clip:
        raw = block.soft_clip * torch.tanh(raw / block.soft_clip)
    a, location = raw.chunk(2, dim=-1)
    return block.min_scale + (1 - block.min_scale) * F.softplus(a + SOFTPLUS_ONE), location


def forward(
    block: Block, x: Float[Tensor, "b n d"], text: Float[Tensor, "b l t"] | None = None
) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b n d"]]:
    """Return z in raster order, and the log-determinant of each element in scan order."""
    ordered = x[:, block.order]
    first = block.first.expand(len(x), 1, -1)
    h = torch.cat([first, block.inputs(ordered[:, :-1])], dim=1)
    h = h if block.embedding is None else h + block.embedding
    prefix = block.prefix(text) if block.prefix is not None and text is not None else None
    h = h if prefix is None else torch.cat([prefix, h], dim=1)
    scale, location = parameters(block, run(block, h, _rotation(block, h))[:, -ordered.shape[1] :])
    z = (ordered - location) / scale
    return z[:, block.order.argsort()], -scale.log()


def inverse(
    block: Block,
    z: Float[Tensor, "b n d"],
    text: Float[Tensor, "c l t"] | None = None,
    guidance: float = 0.0,
) -> Float[Tensor, "b n d"]:
    """Sample one position after the other, as the published code does.

    Args:
        block: The block.
        z: Noise, raster order.
        text: Text before the image; with guidance twice the rows, null texts last.
        guidance: Weight of Gaussian mixing where the block sees text.
    """
    guided = guidance > 0 and block.prefix is not None
    ordered = z[:, block.order]
    rows = torch.cat([ordered, ordered]) if guided else ordered
    cache = Cache()
    rotation = _rotation(block, z)
    if block.prefix is not None and text is not None:
        run(block, block.prefix(text), rotation, cache)
    x = rows[:, :0]
    h = block.first.expand(len(rows), 1, -1)
    for index in range(rows.shape[1]):
        if block.embedding is not None:
            h = h + block.embedding[index]
        scale, location = parameters(block, run(block, h, rotation, cache)[:, -1:])
        if guided:
            scale, location = _mixed(scale, location, guidance)
        x = torch.cat([x, rows[:, index : index + 1] * scale + location], dim=1)
        h = block.inputs(x[:, -1:])
    return x[: len(z), block.order.argsort()]


def _rotation(block: Block, like: Tensor) -> tuple[Tensor, Tensor]:
    return block.angles.cos().to(like), block.angles.sin().to(like)


def _mixed(scale: Tensor, location: Tensor, w: float) -> tuple[Tensor, Tensor]:
    (s_c, s_u), (mu_c, mu_u) = scale.chunk(2), location.chunk(2)
    r = (s_c / s_u).clamp(max=1.0).square()
    total = 1 + w - w * r
    mu, sigma = ((1 + w) * mu_c - w * r * mu_u) / total, s_c / total.sqrt()
    return torch.cat([sigma, sigma]), torch.cat([mu, mu])


def forward_all(
    blocks: Sequence[Block], x: Float[Tensor, "b n d"], text: Tensor | None = None
) -> tuple[Float[Tensor, "b n d"], Float[Tensor, " b"]]:
    """Map latents to noise through all blocks; text enters those that see it."""
    logdet = x.new_zeros(len(x))
    for block in blocks:
        x, own = forward(block, x, text)
        logdet = logdet + own.sum(dim=(1, 2))
    return x, logdet


def inverse_all(
    blocks: Sequence[Block],
    z: Float[Tensor, "b n d"],
    text: Tensor | None = None,
    guidance: float = 0.0,
) -> Float[Tensor, "b n d"]:
    """Map noise to latents through all blocks."""
    for block in reversed(blocks):
        z = inverse(block, z, text, guidance)
    return z


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
