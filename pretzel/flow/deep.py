"""The deep stream: a causal TarFlow transformer over the interleaved sequence."""

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from pretzel.errors import UserError
from pretzel.flow.conditioner import (
    ConditionerCache,
    ConditionerFactory,
    LayeredConditioner,
    Rotation,
)
from pretzel.flow.positions import AxialPositions, PositionsFactory
from pretzel.flow.sizes import check_grid, check_sizes
from pretzel.flow.transforms import Transform
from pretzel.flow.transforms.base import with_free_params
from pretzel.sequence.masks import Mask
from pretzel.typing import Float, Int, Tensor


class DeepStream(nn.Module):
    """The deep autoregressive block, over the interleaved text and image positions.

    Unlike a shallow block it shares its positions with the vision-language model: the input at an
    image position is that position's own u, and the state *before* it (begin-of-image for the
    first) gives its parameters. The interleaving adds other inputs to u.

    Args:
        channels: Channels D of u (given by the parent).
        grid: Shape of the latent grid (given by the parent).
        num_layers: Layers (given by the split).
        transform: Elementwise transform of u given the state before.
        conditioner: Causal network.
        positions: Positional encoding; None for :class:`~pretzel.flow.positions.AxialPositions`.

    Raises:
        UserError: If a size is not positive, or the encoding needs the final length of a text.
    """

    def __init__(
        self,
        channels: int,
        grid: tuple[int, ...],
        num_layers: int,
        *,
        transform: Transform,
        conditioner: ConditionerFactory,
        positions: PositionsFactory | None = None,
    ) -> None:
        super().__init__()
        check_sizes(channels=channels)
        check_grid(grid)
        self.channels = channels
        self.transform = transform
        self.conditioner = conditioner(num_layers)
        self.width = self.conditioner.width
        self.input = nn.Linear(channels, self.width)
        make_positions: PositionsFactory = positions or AxialPositions
        self.positions = make_positions(grid, self.width, self.conditioner.rotary_dim, True)
        if not self.positions.streams:
            raise UserError(
                "positions of the deep stream must be known before a text ends, those of "
                f"{type(self.positions).__name__} are not"
            )
        free = transform.free_per_channel * channels
        self.free = nn.Parameter(torch.zeros(math.prod(grid), free)) if free else None
        self.head = nn.Linear(self.width, transform.conditional_per_channel * channels)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def embed(
        self, u: Float[Tensor, "b l d"], positions: Int[Tensor, "b l a"]
    ) -> Float[Tensor, "b l w"]:
        """Return P_in(u) plus the learned embedding of the place on the grid."""
        out: Tensor = self.input(u)
        embedding = self.positions.embed(positions[..., 1:])
        return out if embedding is None else out + embedding

    def forward(
        self,
        inputs: Float[Tensor, "b l w"],
        positions: Int[Tensor, "b l a"],
        mask: Mask | None = None,
        cache: ConditionerCache | None = None,
    ) -> Float[Tensor, "b l w"]:
        """Return y_D, the last hidden state after the final norm, for every position.

        With a cache the new positions are committed to it.

        Args:
            inputs: c_t, the interleaving's input at each position.
            positions: Text axis, then the coordinates of the grid.
            mask: Which key a query may attend; None for causal over right-padded rows.
            cache: Keys and values of the positions before.
        """
        rotation = self.positions.rotation(positions, inputs.dtype)
        out: Tensor = self.conditioner(inputs, rotation, mask, cache)
        return out

    def begin(
        self,
        positions: Int[Tensor, "b l a"],
        dtype: torch.dtype,
        mask: Mask | None = None,
        cache: ConditionerCache | None = None,
    ) -> "DeepRun":
        """Return a pass over new positions that can stop between layers.

        Raises:
            UserError: If the conditioner cannot.
        """
        if not isinstance(self.conditioner, LayeredConditioner):
            raise UserError(
                "conditioner of the deep stream must be a LayeredConditioner to stop between its "
                f"layers, got {type(self.conditioner).__name__}"
            )
        rotation = self.positions.rotation(positions, dtype)
        return DeepRun(self.conditioner, rotation, mask, cache)

    def new_cache(
        self, batch_size: int, max_length: int, temperature: Float[Tensor, " b"] | None = None
    ) -> ConditionerCache:
        """Return an empty cache of ``max_length`` positions."""
        cache: ConditionerCache = self.conditioner.new_cache(batch_size, max_length, temperature)
        return cache

    def params(self, before: Float[Tensor, "b k w"], start: int = 0) -> Float[Tensor, "b k p"]:
        """Return raw transform parameters of u_n, n from ``start`` on, from the states before n."""
        return with_free_params(self.free, self.head(before), start)


@dataclass
class DeepRun:
    """A pass of new positions through the deep stream, some layers at a time."""

    conditioner: LayeredConditioner[Any]
    rotation: Rotation | None
    mask: Mask | None
    cache: ConditionerCache | None
    done: int = 0

    def advance(self, h: Float[Tensor, "b l w"], num_layers: int) -> Float[Tensor, "b l w"]:
        """Run the next ``num_layers`` layers."""
        start, self.done = self.done, self.done + num_layers
        return self.conditioner.run(h, start, self.done, self.rotation, self.mask, self.cache)

    def finish(self, h: Float[Tensor, "b l w"]) -> Float[Tensor, "b l w"]:
        """Return y_D once all layers have run; commit the positions to the cache."""
        assert self.done == self.conditioner.num_layers
        return self.conditioner.finish(h, self.cache)


@runtime_checkable
class DeepFactory(Protocol):
    """Makes the deep stream for sizes that its parent owns."""

    def __call__(self, channels: int, grid: tuple[int, ...], num_layers: int) -> DeepStream:
        """Return a deep stream."""
