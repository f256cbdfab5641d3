"""Flow blocks: invertible maps of a latent grid, and the autoregressive family among them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

import torch
from torch import nn

from pretzel.errors import UserError
from pretzel.flow.permutations import Permutation
from pretzel.flow.positions import AxialRotary, GridEmbedding, grid_coordinates
from pretzel.flow.transformer import CausalTransformer
from pretzel.flow.transforms import Transform
from pretzel.sampling.cache import KVCache
from pretzel.typing import Float, Tensor

CacheT = TypeVar("CacheT")


@dataclass(frozen=True, kw_only=True)
class Flowed:
    """What a block makes of its input.

    Attributes:
        z: The mapped positions, in the order of the input.
        logdet: log|det dz/dx| of each sample, in nats.
    """

    z: Float[Tensor, "b n d"]
    logdet: Float[Tensor, " b"]


class FlowBlock(nn.Module, ABC):
    """An invertible map of token grids with a known log-determinant.

    Attributes:
        channels: Channels D of a position.
        grid: Shape of the latent grid.
    """

    channels: int
    grid: tuple[int, ...]

    @abstractmethod
    def forward(self, x: Float[Tensor, "b n d"]) -> Flowed:
        """Map data towards noise."""

    @abstractmethod
    def inverse(self, z: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Map noise towards data: the exact inverse of :meth:`forward`."""


@runtime_checkable
class BlockFactory(Protocol):
    """Makes a block for sizes that its parent owns."""

    def __call__(
        self, channels: int, grid: tuple[int, ...], num_layers: int, permutation: Permutation
    ) -> FlowBlock:
        """Return a block."""
        ...


class AutoregressiveBlock(FlowBlock, ABC, Generic[CacheT]):
    """Permutation, strictly causal conditioner, elementwise transform.

    In the order of the permutation, z_i = T(x_i; theta(x_<i)). A subclass gives the conditioner
    theta twice: :meth:`condition` for all positions at once, and :meth:`step` for one position
    after the other with a cache; the laws of :mod:`pretzel.testing` hold them to each other.
    The cache is the conditioner's own business: attention keeps keys and values, a convolution
    its window.

    Args:
        channels: Channels D of a position.
        grid: Shape of the latent grid.
        permutation: Order in which positions are visited.
        transform: Elementwise map whose parameters the conditioner gives.
    """

    def __init__(
        self,
        *,
        channels: int,
        grid: tuple[int, ...],
        permutation: Permutation,
        transform: Transform,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.grid = grid
        self.transform = transform
        order = permutation.order(grid)
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("rank", order.argsort(), persistent=False)
        self.order: Tensor
        self.rank: Tensor

    @property
    def num_params(self) -> int:
        """Raw transform parameters of one position."""
        return self.transform.params_per_channel * self.channels

    @abstractmethod
    def condition(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n p"]:
        """Return the parameters of every position from the positions before it.

        Args:
            x: Positions in the order of the permutation.
        """

    @abstractmethod
    def new_cache(self, batch_size: int) -> CacheT:
        """Return an empty cache for one pass over the positions."""

    @abstractmethod
    def step(
        self, previous: Float[Tensor, "b d"] | None, index: int, cache: CacheT
    ) -> Float[Tensor, "b p"]:
        """Return the parameters of position ``index`` and commit the one before.

        Args:
            previous: x of position ``index - 1`` in the order of the permutation; None at 0.
            index: Position asked for, counted up from 0 without a gap.
            cache: What the earlier steps left.
        """

    def forward(self, x: Float[Tensor, "b n d"]) -> Flowed:
        """Map data towards noise.

        Raises:
            UserError: If x does not have the block's grid and channels.
        """
        if x.shape[1:] != (len(self.order), self.channels):
            raise UserError(
                f"{type(self).__name__} takes x of shape [b, {len(self.order)}, {self.channels}] "
                f"(grid {self.grid}), got {tuple(x.shape)}"
            )
        ordered = x[:, self.order]
        z, logdet = self.transform.forward(ordered, self.condition(ordered))
        return Flowed(z=z[:, self.rank], logdet=logdet.sum(dim=(1, 2)))

    def inverse(self, z: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Invert one position after the other with a preallocated cache."""
        ordered = z[:, self.order]
        x = torch.empty_like(ordered)
        cache = self.new_cache(len(z))
        previous = None
        for index in range(z.shape[1]):
            params = self.step(previous, index, cache)
            previous = self.transform.inverse(ordered[:, index], params)
            x[:, index] = previous
        return x[:, self.rank]


class AFBlock(AutoregressiveBlock[KVCache]):
    """An autoregressive flow block with a causal transformer (TarFlow, arXiv 2412.06329).

    The transformer reads a learned start token, then x_0 .. x_{N-2}; its output at a position
    gives the parameters of that position. Rotary and learned embeddings are those of the position
    that is predicted, at its true place on the grid. The head starts at zero, so that the block
    starts as the identity.

    Args:
        channels: Channels D of a position (given by the parent).
        grid: Shape of the latent grid (given by the parent).
        num_layers: Layers of the transformer (given by the split).
        permutation: Scan order (given by the parent).
        transform: Elementwise transform.
        width: Channels of the transformer.
        head_dim: Channels of an attention head.
        mlp_ratio: Hidden size of the MLPs over ``width``.
        theta: Base of the rotary frequencies.
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
        head_dim: int,
        mlp_ratio: float = 4.0,
        theta: float = 100.0,
    ) -> None:
        super().__init__(channels=channels, grid=grid, permutation=permutation, transform=transform)
        self.input = nn.Linear(channels, width)
        self.start = nn.Parameter(0.02 * torch.randn(width))
        self.embedding = GridEmbedding(grid=grid, width=width)
        self.rotary = AxialRotary(head_dim=head_dim, num_axes=len(grid), theta=theta)
        self.transformer = CausalTransformer(
            width=width, num_layers=num_layers, head_dim=head_dim, mlp_ratio=mlp_ratio
        )
        self.head = nn.Linear(width, self.num_params)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        coordinates = grid_coordinates(grid)[self.order]
        self.register_buffer("coordinates", coordinates, persistent=False)
        self.coordinates: Tensor

    def condition(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n p"]:
        """Run the transformer over all positions at once."""
        start = self.start.expand(len(x), 1, -1)
        h = torch.cat([start, self.input(x[:, :-1])], dim=1) + self.embedding(self.coordinates)
        y = self.transformer(h, self.rotary(self.coordinates, x.dtype))
        params: Tensor = self.head(y)
        return params

    def new_cache(self, batch_size: int) -> KVCache:
        """Return an empty cache of N positions."""
        return self.transformer.new_cache(batch_size, len(self.order))

    def step(
        self, previous: Float[Tensor, "b d"] | None, index: int, cache: KVCache
    ) -> Float[Tensor, "b p"]:
        """Run the transformer over one position."""
        coordinate = self.coordinates[index : index + 1]
        start = self.start.expand(cache.keys.shape[1], -1)
        h = start if previous is None else self.input(previous)
        h = (h + self.embedding(coordinate))[:, None]
        y = self.transformer(h, self.rotary(coordinate, h.dtype), None, cache)
        params: Tensor = self.head(y[:, 0])
        return params


class FlowStack(nn.Module):
    """Blocks applied one after the other: the shallow flow f_S.

    Args:
        blocks: First block first (data side).
    """

    def __init__(self, blocks: list[FlowBlock]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Float[Tensor, "b n d"]) -> Flowed:
        """Map latents x to u, with log|det du/dx| in nats."""
        logdet = x.new_zeros(len(x))
        for block in self.blocks:
            assert isinstance(block, FlowBlock)
            flowed = block(x)
            x, logdet = flowed.z, logdet + flowed.logdet
        return Flowed(z=x, logdet=logdet)

    def inverse(self, z: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Map u back to latents x."""
        for block in reversed(self.blocks):
            assert isinstance(block, FlowBlock)
            z = block.inverse(z)
        return z
