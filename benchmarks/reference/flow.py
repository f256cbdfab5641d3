"""The flow that a network conditions: density, and sampling one position after the other."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from benchmarks.reference.network import Block, Cache, run
from pretzel.flow.transforms import SOFTPLUS_ONE
from pretzel.typing import Float, Tensor


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
        x, block_logdet = forward(block, x, text)
        logdet = logdet + block_logdet.sum(dim=(1, 2))
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
