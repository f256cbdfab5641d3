"""The autoregressive flow block, made of parts (TarFlow, arXiv 2412.06329)."""

from dataclasses import dataclass

import torch
from torch import nn

from pretzel.flow.block import AutoregressiveBlock
from pretzel.flow.conditioner import ConditionerCache, ConditionerFactory, Rotation
from pretzel.flow.context import Context, ContextFactory, Read
from pretzel.flow.permutations import Permutation
from pretzel.flow.positions import AxialPositions, PositionsFactory
from pretzel.flow.sizes import check_sizes
from pretzel.flow.start_token import StartFactory, StartToken
from pretzel.flow.transforms import Transform
from pretzel.sequence.grid import grid_coordinates
from pretzel.typing import Float, Tensor


@dataclass(kw_only=True)
class AFCache:
    """What one pass over the positions of an :class:`AFBlock` keeps.

    Attributes:
        rows: Rows of the batch.
        network: The conditioner's cache, with the prefix committed.
        read: What is read of the context.
        embedding: Added to the network's input at each position; None for nothing.
        rotation: Rotary positions of every position; None for none.
    """

    rows: int
    network: ConditionerCache
    read: Read
    embedding: Float[Tensor, "#b n w"] | None
    rotation: Rotation | None


class AFBlock(AutoregressiveBlock[AFCache]):
    """An autoregressive flow block: scan order, causal network, elementwise transform, as parts.

    With a start token the network reads it, then x_0 .. x_{N-2}, and its output at a position
    gives the parameters of that position; without one it reads x_0 .. x_{N-1}, and outputs move
    on by one. The i-th input is told the place of the i-th position of the scan either way. The
    head starts at zero, so that the block starts as the identity.

    Args:
        channels: Channels D of a position (given by the parent).
        grid: Shape of the latent grid (given by the parent).
        num_layers: Layers of the conditioner (given by the split).
        permutation: Scan order (given by the parent).
        transform: Elementwise transform.
        conditioner: Causal network.
        positions: How it is told where a position stands; None for
            :class:`~pretzel.flow.positions.AxialPositions`.
        start: What stands before the first position; None for
            :class:`~pretzel.flow.start_token.StartToken`.
        context: How a context is read; None for a block without.

    Raises:
        UserError: If a size is not positive.
    """

    def __init__(
        self,
        channels: int,
        grid: tuple[int, ...],
        num_layers: int,
        permutation: Permutation,
        *,
        transform: Transform,
        conditioner: ConditionerFactory,
        positions: PositionsFactory | None = None,
        start: StartFactory | None = None,
        context: ContextFactory | None = None,
    ) -> None:
        super().__init__(channels=channels, grid=grid, permutation=permutation, transform=transform)
        check_sizes(num_layers=num_layers)
        self.conditioner = conditioner(num_layers)
        width = self.conditioner.width
        self.input = nn.Linear(channels, width)
        self.start = (start or StartToken)(channels, width)
        self.context = None if context is None else context(width, num_layers)
        self.reads_context = self.context is not None
        text_axis = self.context is not None and self.context.has_prefix
        make_positions: PositionsFactory = positions or AxialPositions
        self.positions = make_positions(grid, width, self.conditioner.rotary_dim, text_axis)
        self.head = nn.Linear(width, self.num_params)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        coordinates = grid_coordinates(grid)
        if not self.positions.follows_scan:
            coordinates = coordinates[self.order]
        self.register_buffer("coordinates", coordinates, persistent=False)
        self.coordinates: Tensor

    def example_context(self, num_rows: int) -> Context | None:
        """Return different contexts for the block's reader."""
        return None if self.context is None else self.context.example(num_rows)

    def condition(
        self, x: Float[Tensor, "b n d"], context: Context | None = None
    ) -> Float[Tensor, "b n p"]:
        """Run the network over all positions at once."""
        return self.parameters_of(self.states(x, context)[:, -x.shape[1] :])

    def states(
        self, x: Float[Tensor, "b n d"], context: Context | None = None
    ) -> Float[Tensor, "b l w"]:
        """Return the network's states, those of a prefix first.

        Args:
            x: Positions in the order of the permutation.
            context: What the block is conditioned on.
        """
        read = self._read(context)
        h = self._inputs(x, read)
        length = 0
        if read.prefix is not None:
            length = read.prefix.shape[1]
            h = torch.cat([read.prefix, h], dim=1)
        rotation = self._rotation(length if read.prefix is not None else None, h.dtype)
        out: Tensor = self.conditioner(h, rotation, modulation=read.modulation)
        return out

    def parameters_of(self, states: Float[Tensor, "b n w"]) -> Float[Tensor, "b n p"]:
        """Return the parameters of every position from the states at all of them."""
        params: Tensor = self.head(states)
        if self.start.shifts_outputs:
            params = torch.cat([torch.zeros_like(params[:, :1]), params[:, :-1]], dim=1)
        return params

    def new_cache(
        self,
        batch_size: int,
        context: Context | None = None,
        temperature: Float[Tensor, " b"] | None = None,
    ) -> AFCache:
        """Return a cache with room for all positions, the prefix committed."""
        read = self._read(context)
        length = None if read.prefix is None else read.prefix.shape[1]
        cache = self.conditioner.new_cache(batch_size, len(self.order) + (length or 0), temperature)
        rotation = self._rotation(length, self.head.weight.dtype)
        if read.prefix is not None and length:
            self.conditioner(read.prefix, _part(rotation, 0, length), None, cache, read.modulation)
        embedding = self.positions.embed(self.coordinates)
        if embedding is not None:
            embedding = embedding[None]
        if read.added is not None:
            added = read.added[:, None]
            embedding = added if embedding is None else embedding + added
        return AFCache(
            rows=batch_size,
            network=cache,
            read=read,
            embedding=embedding,
            rotation=_part(rotation, length or 0, None),
        )

    def step(
        self, previous: Float[Tensor, "b d"] | None, index: int, cache: AFCache
    ) -> Float[Tensor, "b p"]:
        """Run the network over one position."""
        if self.start.shifts_outputs:
            if previous is None:
                return self._nothing(cache, 1)[:, 0]
            h, place = self.input(previous)[:, None], index - 1
        else:
            first = previous is None
            h = self._first(cache) if first else self.input(previous)[:, None]
            place = index
        y = self._run(h, place, cache)
        params: Tensor = self.head(y[:, 0])
        return params

    def evaluate(
        self, x: Float[Tensor, "b n d"], start: int, stop: int, cache: AFCache
    ) -> Float[Tensor, "b k p"]:
        """Run the network over several positions behind the cache."""
        h = self.input(x[:, max(start - 1, 0) : stop - 1])
        if self.start.shifts_outputs:
            y = self._run(h, max(start - 1, 0), cache) if h.shape[1] else h
            params: Tensor = self.head(y)
            if start == 0:
                params = torch.cat([self._nothing(cache, 1), params], dim=1)
            return params
        if start == 0:
            h = torch.cat([self._first(cache), h], dim=1)
        params = self.head(self._run(h, start, cache))
        return params

    def rewind(self, start: int, stop: int, cache: AFCache) -> None:
        """Forget the keys and values of the last evaluation."""
        unread = self.start.shifts_outputs and start == 0  # the first position reads nothing
        cache.network.rewind(stop - start - unread)

    def _read(self, context: Context | None) -> Read:
        if self.context is None or context is None:
            return Read()
        if context.is_floating_point():
            context = context.to(self.head.weight.dtype)
        read: Read = self.context(context)
        return read

    def _inputs(self, x: Tensor, read: Read) -> Tensor:
        if self.start.shifts_outputs:
            h = self.input(x)
        else:
            first = self.start(self.input).expand(len(x), 1, -1)
            h = torch.cat([first, self.input(x[:, :-1])], dim=1)
        embedding = self.positions.embed(self.coordinates)
        h = h if embedding is None else h + embedding
        out: Tensor = h if read.added is None else h + read.added[:, None]
        return out

    def _rotation(self, length: int | None, dtype: torch.dtype) -> Rotation | None:
        """Return the rotation of a prefix of ``length`` (None: no text axis) and all positions."""
        places = self.positions.image_places(self.coordinates, length)
        if length is not None:
            text = self.positions.text_places(length, places.shape[-1], places.device).to(places)
            places = torch.cat([text, places])
        return self.positions.rotation(places, dtype)

    def _run(self, h: Tensor, place: int, cache: AFCache) -> Tensor:
        end = place + h.shape[1]
        if cache.embedding is not None:
            shared = cache.embedding.shape[1] == 1  # one vector for all positions
            h = h + (cache.embedding if shared else cache.embedding[:, place:end])
        rotation = _part(cache.rotation, place, end)
        out: Tensor = self.conditioner(h, rotation, None, cache.network, cache.read.modulation)
        return out

    def _first(self, cache: AFCache) -> Tensor:
        token: Tensor = self.start(self.input)
        return token.expand(cache.rows, 1, -1)

    def _nothing(self, cache: AFCache, positions: int) -> Tensor:
        return self.head.weight.new_zeros(cache.rows, positions, self.num_params)


def _part(rotation: Rotation | None, start: int, stop: int | None) -> Rotation | None:
    if rotation is None:
        return None
    return rotation[0][..., start:stop, :], rotation[1][..., start:stop, :]
