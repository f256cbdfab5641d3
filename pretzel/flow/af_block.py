"""The autoregressive flow block, made of parts (TarFlow, arXiv 2412.06329)."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from pretzel.flow.block import AutoregressiveBlock
from pretzel.flow.conditioner import ConditionerCache, ConditionerFactory, Modulation, Rotation
from pretzel.flow.context import Context, ContextFactory, ContextInputs
from pretzel.flow.decoding import with_turn
from pretzel.flow.decoding_step import DecodingStep, decoding_step
from pretzel.flow.permutations import Permutation
from pretzel.flow.positions import AxialPositions, PositionsFactory
from pretzel.flow.precision import is_autocast
from pretzel.flow.sizes import check_sizes
from pretzel.flow.start_token import StartFactory, StartToken
from pretzel.flow.transforms import Transform
from pretzel.sequence.grid import grid_coordinates
from pretzel.typing import Float, Tensor


@dataclass(kw_only=True)
class AFCache:
    """Cache of one pass over the positions of an :class:`AFBlock`; the network's holds the prefix.

    The embedding is added to the network's input; it and the rotation are those of all positions.
    """

    num_rows: int
    network: ConditionerCache
    modulation: Modulation | None
    embedding: Float[Tensor, "*b n w"] | None
    rotation: Rotation | None
    _places: list[tuple[Tensor | None, Rotation | None]] | None = field(default=None, init=False)
    _step: DecodingStep | Literal["unknown"] | None = field(default="unknown", init=False)

    def step(self, block: "AFBlock") -> DecodingStep | None:
        """Return the block's step laid out, made at first use; None if it cannot be now."""
        if torch.is_grad_enabled() or is_autocast(block.head.weight.device):
            return None
        if self._step == "unknown":
            count = len(block.order)
            self._step = None
            if type(block) is AFBlock and not block.start.shifts_outputs:
                places = [self.at(index, index + 1, count) for index in range(count)]
                parts = (block.conditioner, self.network, block.input, block.head, places)
                self._step = decoding_step(*parts, is_modulated=self.modulation is not None)
        return self._step

    def at(
        self, start: int, stop: int, num_positions: int
    ) -> tuple[Tensor | None, Rotation | None]:
        """Return the embedding and the rotation of positions start .. stop - 1."""
        if stop == start + 1:
            if self._places is None:  # split once, not at every step
                self._places = _by_place(num_positions, self.embedding, self.rotation)
            return self._places[start]
        embedding = None if self.embedding is None else self.embedding[..., start:stop, :]
        return embedding, _slice(self.rotation, start, stop)


class AFBlock(AutoregressiveBlock[AFCache]):
    """An autoregressive flow block: scan order, causal network, elementwise transform, as parts.

    With a start token the network reads it, then x_0 .. x_{N-2}, and its output at a position
    gives the parameters of that position; without one it reads x_0 .. x_{N-1}, and its outputs are
    shifted by one. Either way the i-th input has the place of the i-th position of the scan. The
    head starts at zero, so that the block starts as the identity.

    Args:
        channels: Channels D of a position (given by the parent).
        grid: Shape of the latent grid (given by the parent).
        num_layers: Layers of the conditioner (given by the split).
        permutation: Scan order (given by the parent).
        transform: Elementwise transform.
        conditioner: Causal network.
        positions: Positional encoding; None for :class:`~pretzel.flow.positions.AxialPositions`.
        start: Start of the scan; None for :class:`~pretzel.flow.start_token.StartToken`.
        context: Reader of the context; None for a block without.

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
        params: Tensor = self.head(self.states(x, context)[:, -x.shape[1] :])
        if self.start.shifts_outputs:
            params = torch.cat([torch.zeros_like(params[:, :1]), params[:, :-1]], dim=1)
        return params

    def states(
        self, x: Float[Tensor, "b n d"], context: Context | None = None
    ) -> Float[Tensor, "b l w"]:
        """Return the network's states at positions in scan order, behind those of a prefix."""
        inputs = self._read(context)
        if self.start.shifts_outputs:
            h = self.input(x)
        else:
            h = torch.cat([self._first(len(x)), self.input(x[:, :-1])], dim=1)
        embedding = self.positions.embed(self.coordinates)
        if embedding is not None:
            h = h + embedding
        if inputs.added is not None:
            h = h + inputs.added[:, None]
        length = None
        if inputs.prefix is not None:
            h = torch.cat([inputs.prefix, h], dim=1)
            length = inputs.prefix.shape[1]
        rotation = self._rotation(length, h.dtype)
        out: Tensor = self.conditioner(h, rotation, modulation=inputs.modulation)
        return out

    def new_cache(
        self,
        batch_size: int,
        context: Context | None = None,
        temperature: Float[Tensor, " b"] | None = None,
    ) -> AFCache:
        """Return a cache for all positions, the prefix committed."""
        inputs = self._read(context)
        length = None if inputs.prefix is None else inputs.prefix.shape[1]
        cache = self.conditioner.new_cache(batch_size, len(self.order) + (length or 0), temperature)
        rotation = self._rotation(length, self.head.weight.dtype)
        if inputs.prefix is not None and length:
            places = _slice(rotation, 0, length)
            self.conditioner(inputs.prefix, places, None, cache, inputs.modulation)
        embedding = self.positions.embed(self.coordinates)
        if inputs.added is not None:
            added = inputs.added[:, None].expand(-1, len(self.order), -1)
            embedding = added if embedding is None else embedding + added
        rotation = _slice(rotation, length or 0, None)
        if rotation is not None:
            rotation = with_turn(rotation)
        return AFCache(
            num_rows=batch_size,
            network=cache,
            modulation=inputs.modulation,
            embedding=embedding,
            rotation=rotation,
        )

    def step(
        self, previous: Float[Tensor, "b d"] | None, index: int, cache: AFCache
    ) -> Float[Tensor, "b p"]:
        """Run the network over one position."""
        step = None if previous is None else cache.step(self)
        if previous is not None and step is not None:
            return step(previous, index, cache.network, cache.modulation)
        h = self._first(cache.num_rows) if previous is None else self.input(previous)[:, None]
        return self._advance(h, index, cache)[:, 0]

    def evaluate(
        self, x: Float[Tensor, "b n d"], start: int, stop: int, cache: AFCache
    ) -> Float[Tensor, "b k p"]:
        """Run the network over several positions behind the cache."""
        h = self.input(x[:, max(start - 1, 0) : stop - 1])
        if start == 0:
            h = torch.cat([self._first(cache.num_rows), h], dim=1)
        return self._advance(h, start, cache)

    def rewind(self, start: int, stop: int, cache: AFCache) -> None:
        """Forget the keys and values of the last evaluation."""
        # Where outputs are shifted, the parameters of the first position need no input.
        no_input = self.start.shifts_outputs and start == 0
        cache.network.rewind(stop - start - no_input)

    def _read(self, context: Context | None) -> ContextInputs:
        if self.context is None or context is None:
            return ContextInputs()
        if context.is_floating_point():
            context = context.to(self.head.weight.dtype)
        inputs: ContextInputs = self.context(context)
        return inputs

    def _rotation(self, length: int | None, dtype: torch.dtype) -> Rotation | None:
        """Return the rotation of a prefix of ``length`` (None: no text axis) and all positions."""
        places = self.positions.image_places(self.coordinates, length)
        if length is not None:
            text = self.positions.text_places(length, places.shape[-1], places.device).to(places)
            places = torch.cat([text, places])
        return self.positions.rotation(places, dtype)

    def _advance(self, h: Tensor, start: int, cache: AFCache) -> Tensor:
        """Return the parameters of positions from ``start`` on, given the input before each."""
        shifts = self.start.shifts_outputs
        if h.shape[1]:
            place = max(start - 1, 0) if shifts else start
            end = place + h.shape[1]
            embedding, rotation = cache.at(place, end, len(self.order))
            if embedding is not None:
                h = h + embedding
            h = self.conditioner(h, rotation, None, cache.network, cache.modulation)
        params: Tensor = self.head(h)
        if start == 0 and shifts:
            first = self.head.weight.new_zeros(cache.num_rows, 1, self.num_params)
            params = torch.cat([first, params], dim=1)
        return params

    def _first(self, num_rows: int) -> Tensor:
        """Return the input before the first position; of no positions where outputs are shifted."""
        if self.start.shifts_outputs:
            # By the linear map, whose outputs autocast may give another dtype
            first: Tensor = self.input(self.head.weight.new_empty(num_rows, 0, self.channels))
        else:
            first = self.start(self.input).expand(num_rows, 1, -1)
        return first


def _slice(rotation: Rotation | None, start: int, stop: int | None) -> Rotation | None:
    if rotation is None:
        return None
    return tuple(part[..., start:stop, :] for part in rotation)


def _by_place(
    count: int, embedding: Tensor | None, rotation: Rotation | None
) -> list[tuple[Tensor | None, Rotation | None]]:
    """Split the embedding and the rotation of all positions."""
    vectors = [None] * count if embedding is None else torch.split(embedding, 1, dim=-2)
    if rotation is None:
        return [(vector, None) for vector in vectors]
    rotations = zip(*(torch.split(part, 1, dim=-2) for part in rotation), strict=True)
    return list(zip(vectors, rotations, strict=True))
