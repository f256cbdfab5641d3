"""An autoregressive flow block with gated dilated causal convolutions (WaveNet, 1609.03499)."""

import torch
import torch.nn.functional as F
from pretzel.errors import UserError
from pretzel.flow import AutoregressiveBlock, Permutation, Transform
from pretzel.flow.context import Context
from pretzel.flow.norms import RMSNorm
from pretzel.flow.positions import GridEmbedding
from pretzel.sequence.grid import grid_coordinates
from pretzel.typing import Float, Tensor
from torch import nn


class CausalConv(nn.Module):
    """A gated residual layer: position i reads i, i - dilation, .. i - (kernel_size - 1) dilation.

    Args:
        width: Channels of the residual stream.
        kernel_size: Taps.
        dilation: Positions between two taps.
    """

    def __init__(self, *, width: int, kernel_size: int, dilation: int) -> None:
        super().__init__()
        self.reach = (kernel_size - 1) * dilation
        self.norm = RMSNorm(width)
        self.conv = nn.Conv1d(width, 2 * width, kernel_size, dilation=dilation)
        self.out = nn.Linear(width, width)
        self.register_buffer("ago", torch.arange(self.reach, -1, -dilation), persistent=False)
        self.ago: Tensor

    def forward(self, h: Float[Tensor, "b n w"]) -> Float[Tensor, "b n w"]:
        """Run over all positions at once."""
        padded = F.pad(self.norm(h).transpose(1, 2), (self.reach, 0))
        return self._gated(h, self.conv(padded).transpose(1, 2))

    def step(
        self, h: Float[Tensor, "b w"], index: int, ring: Float[Tensor, "b r w"]
    ) -> Float[Tensor, "b w"]:
        """Run over position ``index``; the ring keeps the last r = reach + 1 inputs."""
        ring[:, index % ring.shape[1]] = self.norm(h)
        window = ring[:, (index - self.ago) % ring.shape[1]]
        y = F.conv1d(window.transpose(1, 2), self.conv.weight, self.conv.bias)
        return self._gated(h, y[..., 0])

    def _gated(self, h: Tensor, y: Tensor) -> Tensor:
        value, gate = y.chunk(2, dim=-1)
        out: Tensor = h + self.out(value.tanh() * gate.sigmoid())
        return out


class CausalConvBlock(AutoregressiveBlock[list[Tensor]]):
    """Permutation, stack of dilated causal convolutions, elementwise transform.

    Dilations grow by the kernel size, so that the last layer reads kernel_size ** num_layers
    positions without a gap. The head starts at zero and the block as the identity.

    Args:
        channels: Channels D of a position (given by the parent).
        grid: Shape of the latent grid (given by the parent).
        num_layers: Convolutions (given by the split).
        permutation: Scan order (given by the parent).
        transform: Elementwise transform.
        width: Channels of the convolutions.
        kernel_size: Taps of each.

    Raises:
        UserError: If ``kernel_size`` is below 2.
    """

    def __init__(
        self,
        channels: int,
        grid: tuple[int, ...],
        num_layers: int,
        permutation: Permutation,
        *,
        transform: Transform,
        width: int,
        kernel_size: int = 4,
    ) -> None:
        super().__init__(channels=channels, grid=grid, permutation=permutation, transform=transform)
        if kernel_size < 2:
            raise UserError(f"kernel_size must be at least 2, got {kernel_size}")
        self.input = nn.Linear(channels, width)
        self.start = nn.Parameter(0.02 * torch.randn(width))
        self.embedding = GridEmbedding(grid=grid, width=width)
        self.layers = nn.ModuleList(
            CausalConv(width=width, kernel_size=kernel_size, dilation=kernel_size**i)
            for i in range(num_layers)
        )
        self.head = nn.Sequential(RMSNorm(width), nn.Linear(width, self.num_params))
        nn.init.zeros_(self.head[1].weight)
        nn.init.zeros_(self.head[1].bias)
        self.register_buffer("coordinates", grid_coordinates(grid)[self.order], persistent=False)
        self.coordinates: Tensor

    def condition(
        self, x: Float[Tensor, "b n d"], context: Context | None = None
    ) -> Float[Tensor, "b n p"]:
        """Convolve the positions before each."""
        start = self.start.expand(len(x), 1, -1)
        h = torch.cat([start, self.input(x[:, :-1])], dim=1) + self.embedding(self.coordinates)
        for layer in self.layers:
            h = layer(h)
        out: Tensor = self.head(h)
        return out

    def new_cache(
        self,
        batch_size: int,
        context: Context | None = None,
        temperature: Float[Tensor, " b"] | None = None,
    ) -> list[Tensor]:
        """Return one ring of zeros for each layer.

        Raises:
            UserError: If a temperature is asked for: there is no attention.
        """
        if temperature is not None:
            raise UserError("temperature needs attention, CausalConvBlock has none")
        return [self.start.new_zeros(batch_size, x.reach + 1, len(self.start)) for x in self.layers]

    def step(
        self, previous: Float[Tensor, "b d"] | None, index: int, cache: list[Tensor]
    ) -> Float[Tensor, "b p"]:
        """Convolve one position."""
        h = self.start.expand(len(cache[0]), -1) if previous is None else self.input(previous)
        h = h + self.embedding(self.coordinates[index])
        for layer, ring in zip(self.layers, cache, strict=True):
            h = layer.step(h, index, ring)
        out: Tensor = self.head(h)
        return out
