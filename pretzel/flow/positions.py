"""Where a position stands: a text axis and the coordinates of the latent grid, as a part."""

import math
from abc import ABC, abstractmethod
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from pretzel.errors import UserError
from pretzel.flow.conditioner import Rotation
from pretzel.typing import Float, Int, Tensor


def grid_coordinates(grid: tuple[int, ...]) -> Int[Tensor, "n axes"]:
    """Return the coordinates of every grid position, in raster order."""
    axes = torch.meshgrid(*(torch.arange(size) for size in grid), indexing="ij")
    return torch.stack([axis.flatten() for axis in axes], dim=-1)


class AxialRotary(nn.Module):
    """Rotary position embedding over several axes (RoPE, arXiv 2104.09864, n-D).

    The channel pairs of a head are dealt out to the axes in equal shares; what is left over goes
    to the first axes. Pair (j, j + e/2) of a head of width e rotates by position times frequency.

    Args:
        head_dim: Width e of a head; even, and at least two channels for each axis.
        num_axes: Axes of a position.
        theta: Base of the geometric frequencies; small grids want a small one.

    Raises:
        UserError: If the head cannot be dealt out.
    """

    def __init__(self, *, head_dim: int, num_axes: int, theta: float = 100.0) -> None:
        super().__init__()
        if head_dim % 2 or head_dim // 2 < num_axes:
            raise UserError(
                f"head_dim must be even and at least {2 * num_axes} for {num_axes} position axes, "
                f"got {head_dim}"
            )
        pairs = head_dim // 2
        share = [pairs // num_axes + (axis < pairs % num_axes) for axis in range(num_axes)]
        frequencies = torch.zeros(num_axes, pairs)
        start = 0
        for axis, count in enumerate(share):
            exponents = torch.arange(count) / count
            frequencies[axis, start : start + count] = theta**-exponents
            start += count
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.frequencies: Tensor

    def forward(self, positions: Tensor, dtype: torch.dtype) -> Rotation:
        """Return cosines and signed sines of positions [*b, l, a], ready for :func:`rotate`."""
        # Not a matrix product: autocast would round angles of hundreds of radians to bfloat16.
        wide = torch.promote_types(self.frequencies.dtype, torch.float32)
        angles = positions.unsqueeze(-1).to(wide) * self.frequencies.to(wide)
        return rotation_of(angles.sum(dim=-2), dtype)


def rotation_of(angles: Float[Tensor, "*b l p"], dtype: torch.dtype) -> Rotation:
    """Return cosines and signed sines [*b, 1, l, e] of the angle of every channel pair."""
    cosine, sine = angles.cos(), angles.sin()
    cosine = torch.cat([cosine, cosine], dim=-1).to(dtype)
    sine = torch.cat([-sine, sine], dim=-1).to(dtype)
    return cosine.unsqueeze(-3), sine.unsqueeze(-3)


def rotate(
    x: Float[Tensor, "b heads l e"],
    cosine: Float[Tensor, "*b 1 l e"],
    sine: Float[Tensor, "*b 1 l e"],
) -> Float[Tensor, "b heads l e"]:
    """Rotate the channel pairs (j, j + e/2) of each head."""
    if x.requires_grad and torch.is_grad_enabled():
        rotated: Tensor = _Rotation.apply(x, cosine, sine)
        return rotated
    return torch.addcmul(x * cosine, x.roll(x.shape[-1] // 2, dims=-1), sine)


class _Rotation(torch.autograd.Function):
    """The same in two passes over memory instead of three, and back in two instead of four."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(cosine, sine)
        half = x.shape[-1] // 2
        out = x * cosine
        out[..., :half].addcmul_(x[..., half:], sine[..., :half])
        out[..., half:].addcmul_(x[..., :half], sine[..., half:])
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        cosine, sine = ctx.saved_tensors
        back: Tensor = _Rotation.apply(gradients[0], cosine, -sine)
        return back, None, None  # by the opposite angle


class GridEmbedding(nn.Module):
    """A learned vector for each coordinate of each grid axis, summed over the axes.

    Args:
        grid: Shape of the grid.
        width: Width of the vectors.
    """

    def __init__(self, *, grid: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.axes = nn.ModuleList([nn.Embedding(size, width) for size in grid])
        for axis in self.axes:
            assert isinstance(axis, nn.Embedding)
            nn.init.normal_(axis.weight, std=0.02)

    def forward(self, coordinates: Int[Tensor, "*b axes"]) -> Float[Tensor, "*b w"]:
        """Return the summed vectors of coordinates."""
        parts = [axis(coordinates[..., i]) for i, axis in enumerate(self.axes)]
        return torch.stack(parts).sum(0) if len(parts) > 2 else sum(parts[1:], parts[0])


class Positions(nn.Module, ABC):
    """How a network is told where a position stands.

    A place has the axes of the grid, behind a text axis where there is text.

    Attributes:
        follows_scan: Whether position i of the scan is told as the i-th of the raster, whatever
            the scan order; otherwise it is told at its true place on the grid.
        streams: Whether a text's positions can be told before its end is known.
    """

    follows_scan: bool = False
    streams: bool = True

    @abstractmethod
    def embed(self, coordinates: Int[Tensor, "*b axes"]) -> Float[Tensor, "*b w"] | None:
        """Return what is added to the network's input at grid coordinates; None for nothing."""

    @abstractmethod
    def rotation(self, places: Tensor, dtype: torch.dtype) -> Rotation | None:
        """Return the rotation [*b, 1, l, e] of places [*b, l, a]; None for no rotary positions."""

    def text_places(self, length: int, num_axes: int) -> Tensor:
        """Return the places [l, a] of a text that stands before the image: 0, 1, 2, ..."""
        return torch.nn.functional.pad(torch.arange(length)[:, None], (0, num_axes - 1))

    def image_places(self, coordinates: Int[Tensor, "n axes"], length: int | None) -> Tensor:
        """Return the places [n, a] of grid coordinates behind ``length`` of text; None: no axis."""
        if length is None:
            return coordinates
        return torch.nn.functional.pad(coordinates, (1, 0), value=length)


class AxialPositions(Positions):
    """RoPE over the text axis and the true grid coordinates, with learned row and column vectors.

    Args:
        grid: Shape of the grid (given by the parent).
        width: Channels of the network (given by the parent).
        rotary_dim: Channels of a head; 0 for a network without rotary positions (given).
        text_axis: Whether places have a text axis (given by the parent).
        theta: Base of the rotary frequencies.
        embedding: Whether a learned vector for each row and each column is added to the input.
    """

    def __init__(
        self,
        grid: tuple[int, ...],
        width: int,
        rotary_dim: int,
        text_axis: bool,
        *,
        theta: float = 100.0,
        embedding: bool = True,
    ) -> None:
        super().__init__()
        self.embedding = GridEmbedding(grid=grid, width=width) if embedding else None
        axes = len(grid) + text_axis
        self.rotary = (
            AxialRotary(head_dim=rotary_dim, num_axes=axes, theta=theta) if rotary_dim else None
        )

    def embed(self, coordinates: Int[Tensor, "*b axes"]) -> Float[Tensor, "*b w"] | None:
        """Return the sum of the row's and the column's vector."""
        return None if self.embedding is None else self.embedding(coordinates)

    def rotation(self, places: Tensor, dtype: torch.dtype) -> Rotation | None:
        """Rotate by the coordinates."""
        return None if self.rotary is None else self.rotary(places, dtype)


class LearnedPositions(Positions):
    """One learned vector for each place on the grid, no rotary positions (TarFlow).

    Args:
        grid: Shape of the grid (given by the parent).
        width: Channels of the network (given by the parent).
        rotary_dim: Not used (given by the parent).
        text_axis: Whether places have a text axis (given by the parent).

    Raises:
        UserError: If text shares the network: it would have no positions.
    """

    def __init__(self, grid: tuple[int, ...], width: int, rotary_dim: int, text_axis: bool) -> None:
        super().__init__()
        if text_axis:
            raise UserError(
                "positions: LearnedPositions tell no places of text; choose AxialPositions where "
                "text stands before the image"
            )
        self.vectors = nn.Parameter(0.01 * torch.randn(math.prod(grid), width))
        strides = [math.prod(grid[axis + 1 :]) for axis in range(len(grid))]
        self.register_buffer("strides", torch.tensor(strides), persistent=False)
        self.strides: Tensor

    def embed(self, coordinates: Int[Tensor, "*b axes"]) -> Float[Tensor, "*b w"] | None:
        """Return the vector of each place."""
        return self.vectors[(coordinates * self.strides).sum(dim=-1)]

    def rotation(self, places: Tensor, dtype: torch.dtype) -> Rotation | None:
        """Return None."""
        return None


class StarflowPositions(Positions):
    """STARFlow's RoPE (arXiv 2506.06276): scaled to the training resolution, along the scan.

    Grid coordinates are scaled by ``side`` over the root of the number of positions, text
    positions by ``side`` over the text's final length, so that a text has to end before its
    positions are known. The i-th position of the scan is told as the i-th of the raster. For the
    published weights; :class:`AxialPositions` has neither restriction.

    Args:
        grid: Shape of the grid, two axes (given by the parent).
        width: Not used (given by the parent).
        rotary_dim: Channels of a head (given by the parent).
        text_axis: Whether this network reads text (given by the parent).
        side: Positions along a side at training resolution.
        of_text_model: Whether the model has text at all: its blocks share one table, in which
            eight channel pairs are the text's, also where a block reads none.

    Raises:
        UserError: If the head is too narrow, the grid has not two axes, or ``side`` is not
            positive.
    """

    follows_scan = True
    streams = False
    _TEXT_PAIRS = 8
    _THETA = 10000.0

    def __init__(
        self,
        grid: tuple[int, ...],
        width: int,
        rotary_dim: int,
        text_axis: bool,
        *,
        side: int,
        of_text_model: bool,
    ) -> None:
        super().__init__()
        if len(grid) != 2:
            raise UserError(f"StarflowPositions need a grid of two axes, got grid={grid}")
        if side < 1:
            raise UserError(f"side must be positive, got {side}")
        pairs = rotary_dim // 2 - (self._TEXT_PAIRS if of_text_model else 0)
        if rotary_dim % 2 or pairs < 0 or pairs % 2:
            raise UserError(
                "head_dim must be even and leave an even number of channel pairs for the image "
                f"beside {self._TEXT_PAIRS} for text (of_text_model={of_text_model}), "
                f"got {rotary_dim}"
            )
        self.side = side
        self.text_axis = text_axis
        self.image_scale = side / math.sqrt(math.prod(grid))
        of_image = self._THETA ** (-2 * torch.arange(pairs // 2).double() / max(pairs, 1))
        frequencies = torch.zeros(3, rotary_dim // 2, dtype=torch.float64)
        frequencies[1, : pairs // 2] = of_image
        frequencies[2, pairs // 2 : pairs] = of_image
        if of_text_model:
            exponents = torch.arange(self._TEXT_PAIRS).double() / self._TEXT_PAIRS
            frequencies[0, pairs:] = self._THETA**-exponents
        # Kept in double precision whatever the network's: angles reach thousands of radians.
        self._frequencies = frequencies

    def embed(self, coordinates: Int[Tensor, "*b axes"]) -> Float[Tensor, "*b w"] | None:
        """Return None."""
        return None

    def rotation(self, places: Tensor, dtype: torch.dtype) -> Rotation | None:
        """Rotate by scaled places [*b, l, 3]: text, row, column."""
        angles = places.double() @ self._frequencies.to(places.device)
        return rotation_of(angles, dtype)

    def text_places(self, length: int, num_axes: int) -> Tensor:
        """Return j / L * side on the text axis."""
        places = torch.arange(length).double() / max(length, 1) * self.side
        return torch.nn.functional.pad(places[:, None], (0, 2))

    def image_places(self, coordinates: Int[Tensor, "n axes"], length: int | None) -> Tensor:
        """Return the scaled coordinates, at 0 on the text axis."""
        return torch.nn.functional.pad(coordinates.double() * self.image_scale, (1, 0))


@runtime_checkable
class PositionsFactory(Protocol):
    """Makes positions for sizes that their parent owns."""

    def __call__(
        self, grid: tuple[int, ...], width: int, rotary_dim: int, text_axis: bool
    ) -> Positions:
        """Return positions."""
        ...
