"""Flow blocks: invertible maps of a latent grid, and the contract of the autoregressive ones."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

import torch
from torch import nn

from pretzel.errors import UserError
from pretzel.flow.context import Context
from pretzel.flow.permutations import Permutation
from pretzel.flow.transforms import Transform
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
        reads_context: Whether the map is conditioned; such a block is always given a context.
    """

    channels: int
    grid: tuple[int, ...]
    reads_context: bool = False

    @abstractmethod
    def forward(self, x: Float[Tensor, "b n d"], context: Context | None = None) -> Flowed:
        """Map data towards noise.

        Args:
            x: Positions, raster order.
            context: What the map is conditioned on; None for a block that reads none.
        """

    @abstractmethod
    def inverse(
        self, z: Float[Tensor, "b n d"], context: Context | None = None
    ) -> Float[Tensor, "b n d"]:
        """Map noise towards data: the exact inverse of :meth:`forward`."""

    def example_context(self, num_rows: int) -> Context | None:
        """Return different contexts of the right kind, for the laws; None without a context."""
        if self.reads_context:
            raise UserError(
                f"{type(self).__name__} reads a context and must define example_context(num_rows) "
                "for the laws"
            )
        return None

    def check(self, name: str, value: Tensor, context: Context | None) -> None:
        """Refuse an input of the wrong shape, one that is not finite, or a missing context.

        Args:
            name: The argument, for the message.
            value: Positions.
            context: What came with them.

        Raises:
            UserError: Naming the block, the rule and the value.
        """
        positions = math.prod(self.grid)
        if value.dim() != 3 or value.shape[1:] != (positions, self.channels):
            raise UserError(
                f"{type(self).__name__} takes {name} of shape [b, {positions}, {self.channels}] "
                f"(grid {self.grid}), got {tuple(value.shape)}"
            )
        if self.reads_context != (context is not None):
            raise UserError(
                f"{type(self).__name__} "
                + ("reads a context, got none" if self.reads_context else "reads no context")
            )
        self.check_finite(name, value)

    def check_finite(self, name: str, value: Tensor) -> None:
        """Refuse values that are not finite.

        What a training step computes is not looked at: where it diverges, a guard says at which
        step, and an accelerator is not made to wait.

        Raises:
            UserError: Naming the block, the first such value and its place.
        """
        if (self.training and (value.requires_grad or value.is_cuda)) or value.is_meta:
            return
        finite = value.isfinite()
        if not bool(finite.all()):
            place = (~finite).nonzero()[0].tolist()
            raise UserError(
                f"{type(self).__name__}: {name} must be finite, "
                f"got {value[tuple(place)].item()} at {place}"
            )


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
    its window. Samplers that try several positions at a time ask :meth:`evaluate`, which asks
    :meth:`condition` until a subclass with a cache for several positions knows better.

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
        free = transform.free_per_channel * channels
        self.free = nn.Parameter(torch.zeros(len(order), free)) if free else None

    @property
    def num_params(self) -> int:
        """Raw transform parameters that the conditioner gives for one position."""
        return self.transform.conditional_per_channel * self.channels

    def complete(self, params: Float[Tensor, "b k p"], start: int = 0) -> Float[Tensor, "b k q"]:
        """Put a transform's free parameters before the conditioner's.

        Args:
            params: What the conditioner gives for positions start, start + 1, ...
            start: The first of them, in the order of the permutation.
        """
        if self.free is None:
            return params
        own = self.free[start : start + params.shape[1]]
        return torch.cat([own.expand(len(params), -1, -1), params], dim=-1)

    @abstractmethod
    def condition(
        self, x: Float[Tensor, "b n d"], context: Context | None = None
    ) -> Float[Tensor, "b n p"]:
        """Return the parameters of every position from the positions before it.

        Args:
            x: Positions in the order of the permutation.
            context: What the block is conditioned on, where ``reads_context``.
        """

    @abstractmethod
    def new_cache(
        self,
        batch_size: int,
        context: Context | None = None,
        temperature: Float[Tensor, " b"] | None = None,
    ) -> CacheT:
        """Return an empty cache for one pass over the positions.

        Args:
            batch_size: Rows.
            context: What the block is conditioned on, where ``reads_context``.
            temperature: Divides the attention logits of each row; a block without attention
                refuses one.
        """

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

    def evaluate(
        self, x: Float[Tensor, "b n d"], start: int, stop: int, cache: CacheT
    ) -> Float[Tensor, "b k p"]:
        """Return the parameters of positions start .. stop - 1, and commit what they read.

        Args:
            x: All positions in the order of the permutation: those before ``start`` are final,
                the others an estimate.
            start: First position asked for; everything before it has been committed.
            stop: Position after the last.
            cache: What has been committed.
        """
        if self.reads_context:
            raise UserError(
                f"{type(self).__name__} reads a context, so it must define evaluate and rewind for "
                "samplers of several positions; choose the sampler Sequential, which needs neither"
            )
        return self.condition(x)[:, start:stop]

    def rewind(self, start: int, stop: int, cache: CacheT) -> None:
        """Take back the last :meth:`evaluate`, which was made at the same positions."""
        return

    def elementwise(
        self, x: Float[Tensor, "b n d"], context: Context | None = None
    ) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b n d"]]:
        """Return z and log|dz/dx| of every channel, in the order of the permutation.

        Raises:
            UserError: If x has not the block's grid and channels or is not finite, or a scale
                is so extreme that z is not.
        """
        self.check("x", x, context)
        ordered = x[:, self.order]
        # A block that reads no context need not know that there are any.
        params = self.condition(ordered) if context is None else self.condition(ordered, context)
        z, logdet = self.transform.forward(ordered, self.complete(params))
        self.check_finite("z", z)
        return z, logdet

    def forward(self, x: Float[Tensor, "b n d"], context: Context | None = None) -> Flowed:
        """Map data towards noise.

        Raises:
            UserError: If x has not the block's grid and channels or is not finite, or a scale
                is so extreme that z is not.
        """
        z, logdet = self.elementwise(x, context)
        return Flowed(z=z[:, self.rank], logdet=logdet.sum(dim=(1, 2)))

    def inverse(
        self, z: Float[Tensor, "b n d"], context: Context | None = None
    ) -> Float[Tensor, "b n d"]:
        """Invert one position after the other with a preallocated cache.

        Raises:
            UserError: If z has not the block's grid and channels or is not finite, or x is not.
        """
        self.check("z", z, context)
        ordered = z[:, self.order]
        x = torch.empty_like(ordered)
        cache = self.new_cache(len(z)) if context is None else self.new_cache(len(z), context)
        previous = None
        for index in range(z.shape[1]):
            params = self.complete(self.step(previous, index, cache)[:, None], index)[:, 0]
            previous = self.transform.inverse(ordered[:, index], params)
            x[:, index] = previous
        self.check_finite("x", x)
        return x[:, self.rank]


class Identity(FlowBlock):
    """Leaves everything as it is: a block of no layers.

    Args:
        channels: Channels D of a position (given by the parent).
        grid: Shape of the latent grid (given by the parent).
        num_layers: Not used (given by the parent).
        permutation: Not used (given by the parent).
    """

    def __init__(
        self, channels: int, grid: tuple[int, ...], num_layers: int, permutation: Permutation
    ) -> None:
        super().__init__()
        self.channels = channels
        self.grid = grid

    def forward(self, x: Float[Tensor, "b n d"], context: Context | None = None) -> Flowed:
        """Return x."""
        self.check("x", x, context)
        return Flowed(z=x.clone(), logdet=x.new_zeros(len(x)))

    def inverse(
        self, z: Float[Tensor, "b n d"], context: Context | None = None
    ) -> Float[Tensor, "b n d"]:
        """Return z."""
        self.check("z", z, context)
        return z.clone()


class FlowStack(nn.Module):
    """Blocks applied one after the other: a shallow flow f_S, or a whole TarFlow.

    Args:
        blocks: First block first (data side).
    """

    def __init__(self, blocks: list[FlowBlock]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def __iter__(self) -> Iterator[FlowBlock]:
        for block in self.blocks:
            assert isinstance(block, FlowBlock)
            yield block

    def forward(self, x: Float[Tensor, "b n d"], context: Context | None = None) -> Flowed:
        """Map latents x to u, with log|det du/dx| in nats."""
        logdet = x.new_zeros(len(x))
        for block in self:
            flowed = block(x, context) if block.reads_context else block(x)
            x, logdet = flowed.z, logdet + flowed.logdet
        return Flowed(z=x, logdet=logdet)

    def inverse(
        self, z: Float[Tensor, "b n d"], context: Context | None = None
    ) -> Float[Tensor, "b n d"]:
        """Map u back to latents x."""
        for block in reversed(list(self)):
            z = block.inverse(z, context) if block.reads_context else block.inverse(z)
        return z
