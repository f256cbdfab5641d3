"""The contract of positional encodings."""

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from pretzel.flow.conditioner import Rotation
from pretzel.typing import Float, Int, Tensor


class Positions(nn.Module, ABC):
    """A positional encoding: vectors added to the network's input, rotations of heads, or both.

    A place has the axes of the grid, behind a text axis where there is text.

    Attributes:
        follows_scan: Whether position i of the scan is encoded as the i-th of the raster, whatever
            the scan order; otherwise by its true place on the grid.
        streams: Whether positions of a text can be encoded before its length is known.
    """

    follows_scan: bool = False
    streams: bool = True

    @abstractmethod
    def embed(self, coordinates: Int[Tensor, "*b axes"]) -> Float[Tensor, "*b w"] | None:
        """Return the vectors added to the network's input at grid coordinates; None for none."""

    @abstractmethod
    def rotation(self, places: Tensor, dtype: torch.dtype) -> Rotation | None:
        """Return the rotation [*b, 1, l, e] of places [*b, l, a]; None for no rotary positions."""

    def text_places(self, length: int, num_axes: int, device: torch.device | None = None) -> Tensor:
        """Return the places [l, a] of a text that stands before the image: 0, 1, 2, ..."""
        places = torch.arange(length, device=device)
        return torch.nn.functional.pad(places[:, None], (0, num_axes - 1))

    def image_places(self, coordinates: Int[Tensor, "n axes"], length: int | None) -> Tensor:
        """Return the places [n, a] of grid coordinates behind ``length`` of text; None: no axis."""
        if length is None:
            return coordinates
        return torch.nn.functional.pad(coordinates, (1, 0), value=length)


@runtime_checkable
class PositionsFactory(Protocol):
    """Makes a positional encoding for sizes that its parent owns."""

    def __call__(
        self, grid: tuple[int, ...], width: int, rotary_dim: int, text_axis: bool
    ) -> Positions:
        """Return a positional encoding."""
