"""Attention of all positions of an image to all: pre-norm layers with RoPE, RMSNorm, SwiGLU."""

import torch
from torch import nn

from pretzel.errors import UserError
from pretzel.flow.conditioner import Rotation
from pretzel.flow.mlp import SwiGLU
from pretzel.flow.norms import RMSNorm
from pretzel.flow.positions import AxialRotary
from pretzel.flow.sizes import check_sizes
from pretzel.flow.transformer_layer import Attention, Layer
from pretzel.sequence.masks import Mask
from pretzel.typing import Float, Tensor


def self_attention(width: int, head_dim: int) -> Attention:
    """Return attention with as many heads as fit into the width."""
    check_sizes(width=width, head_dim=head_dim)
    return Attention(
        width=width,
        head_dim=head_dim,
        num_heads=max(1, width // head_dim),
        num_kv_heads=max(1, width // head_dim),
        norm=RMSNorm,
        bias=True,
        gated=False,
    )


class GridAttention(nn.Module):
    """The rotation and the mask of layers in which every position of a grid attends to every other.

    Args:
        grid: Rows and columns.
        head_dim: Channels of a head.
    """

    coordinates: Tensor

    def __init__(self, *, grid: tuple[int, int], head_dim: int) -> None:
        super().__init__()
        rows, columns = (torch.arange(size) for size in grid)
        self.register_buffer("coordinates", torch.cartesian_prod(rows, columns), persistent=False)
        self.rotary = AxialRotary(head_dim=head_dim, num_axes=2)

    def forward(self, x: Float[Tensor, "m n w"]) -> tuple[Rotation, Mask]:
        """Return both for an input of this length."""
        n = x.shape[1]
        everywhere = torch.ones(1, 1, n, n, dtype=torch.bool, device=x.device)
        return self.rotary(self.coordinates, x.dtype), everywhere


class GridTransformer(nn.Module):
    """Pre-norm layers of attention and SwiGLU over the positions of a grid, and a final norm.

    Args:
        grid: Rows and columns.
        width: Channels of the residual stream.
        num_layers: Layers.
        head_dim: Channels of a head.

    Raises:
        UserError: If a size is not positive.
    """

    def __init__(
        self, *, grid: tuple[int, int], width: int, num_layers: int, head_dim: int
    ) -> None:
        super().__init__()
        if num_layers < 0:
            raise UserError(f"num_layers must be 0 or positive, got {num_layers}")
        self.places = GridAttention(grid=grid, head_dim=head_dim)
        layers = [
            Layer(
                self_attention(width, head_dim),
                SwiGLU(width, True),
                width=width,
                pre_norm=RMSNorm,
                post_norm=None,
            )
            for _ in range(num_layers)
        ]
        self.layers = nn.ModuleList(layers)
        self.final_norm = RMSNorm(width)

    def forward(self, x: Float[Tensor, "m n w"]) -> Float[Tensor, "m n w"]:
        """Return the last states, normalised."""
        rotation, mask = self.places(x)
        for layer in self.layers:
            x = layer(x, rotation, mask, None, 0, None)
        out: Tensor = self.final_norm(x)
        return out
