"""The contract of autoregressive blocks."""

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import torch
from torch import nn

from pretzel.errors import UserError
from pretzel.flow.block.base import FlowBlock, Flowed
from pretzel.flow.context import Context
from pretzel.flow.permutations import Permutation
from pretzel.flow.precision import at_least_float32
from pretzel.flow.sizes import check_grid, check_sizes
from pretzel.flow.transforms import Transform
from pretzel.flow.transforms.base import with_free_params
from pretzel.typing import Float, Tensor

CacheT = TypeVar("CacheT")


class AutoregressiveBlock(FlowBlock, ABC, Generic[CacheT]):
    """A flow block of a permutation, a strictly causal conditioner and an elementwise transform.

    In the order of the permutation, z_i = T(x_i; theta(x_<i)). A subclass implements the
    conditioner theta twice: :meth:`condition` for all positions at once, and :meth:`step` for one
    position after the other with a cache; the laws of :mod:`pretzel.testing` check that both agree.
    The cache is the conditioner's own: attention keeps keys and values, a convolution its window.
    Samplers that try several positions at a time call :meth:`evaluate`, which calls
    :meth:`condition` unless a subclass with a cache for several positions overrides it.

    Args:
        channels: Channels D of a position.
        grid: Shape of the latent grid.
        permutation: Order in which positions are visited.
        transform: Elementwise map whose parameters the conditioner gives.

    Raises:
        UserError: If there are no channels or no positions.
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
        check_sizes(channels=channels)
        check_grid(grid)
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
        """Put the free parameters of positions start, start + 1, ... before the conditioner's."""
        return with_free_params(self.free, params, start)

    @abstractmethod
    def condition(
        self, x: Float[Tensor, "b n d"], context: Context | None = None
    ) -> Float[Tensor, "b n p"]:
        """Return the parameters of every position from the positions before it.

        Args:
            x: Positions in the order of the permutation.
            context: Condition of each row, where ``reads_context``.
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
            context: Condition of each row, where ``reads_context``.
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
            index: The position; calls count it up from 0 without a gap.
            cache: The cache that the earlier steps wrote to.
        """

    def evaluate(
        self, x: Float[Tensor, "b n d"], start: int, stop: int, cache: CacheT
    ) -> Float[Tensor, "b k p"]:
        """Return the parameters of positions start .. stop - 1, and commit the inputs they read.

        Args:
            x: All positions in the order of the permutation: those before ``start`` are final,
                the others an estimate.
            start: First of the positions; all before it have been committed.
            stop: Position after the last.
            cache: The committed positions.
        """
        if self.reads_context:
            raise UserError(
                f"{type(self).__name__} reads a context, so it must define evaluate and rewind for "
                "samplers of several positions; choose the sampler Sequential, which needs neither"
            )
        return self.condition(x)[:, start:stop]

    def rewind(self, start: int, stop: int, cache: CacheT) -> None:
        """Undo the last :meth:`evaluate`, which was of the same positions."""
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
        # A subclass that reads no context need not take the argument.
        params = self.condition(ordered) if context is None else self.condition(ordered, context)
        z, logdet = self.transform.forward(ordered, self.complete(params))
        self.check_finite("z", z)
        return z, logdet

    def forward(self, x: Float[Tensor, "b n d"], context: Context | None = None) -> Flowed:
        """Map data towards noise; errors as those of :meth:`elementwise`."""
        z, logdet = self.elementwise(x, context)
        total = logdet.sum(dim=(1, 2), dtype=at_least_float32(logdet))
        return Flowed(z=z[:, self.rank], logdet=total)

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
