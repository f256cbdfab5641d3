"""STARFlow's positional encoding, for its published weights."""

import math

import torch

from pretzel.errors import UserError
from pretzel.flow.conditioner import Rotation
from pretzel.flow.positions.base import Positions
from pretzel.flow.positions.rotary import Frequencies, rotation_of
from pretzel.flow.sizes import check_grid, check_sizes
from pretzel.typing import Float, Int, Tensor


class StarflowPositions(Frequencies, Positions):
    """STARFlow's RoPE (arXiv 2506.06276): scaled to the training resolution, along the scan.

    Grid coordinates are scaled by ``side`` over the root of the number of positions, text
    positions by ``side`` over the text's final length, so that a text has to end before its
    positions are known. The i-th position of the scan is encoded as the i-th of the raster. For the
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
        check_grid(grid)
        if len(grid) != 2:
            raise UserError(f"StarflowPositions need a grid of two axes, got grid={grid}")
        check_sizes(side=side)
        pairs = rotary_dim // 2 - (self._TEXT_PAIRS if of_text_model else 0)
        if rotary_dim < 2 or rotary_dim % 2 or pairs < 0 or pairs % 2:
            raise UserError(
                "head_dim must be even and leave an even number of channel pairs for the image "
                f"beside {self._TEXT_PAIRS} for text (of_text_model={of_text_model}), "
                f"got {rotary_dim}"
            )
        self.side = side
        self.text_axis = text_axis
        self.image_scale = side / math.sqrt(math.prod(grid))
        self.of_text_model = of_text_model
        self.image_pairs = pairs
        self.make_table()

    def table(self, dtype: torch.dtype) -> Float[Tensor, "axes pairs"]:
        """Return the frequencies of text, row and column, in float64 whatever the module's."""
        pairs = self.image_pairs
        text_pairs = self._TEXT_PAIRS if self.of_text_model else 0
        of_image = self._THETA ** (-2 * torch.arange(pairs // 2).double() / max(pairs, 1))
        frequencies = torch.zeros(3, pairs + text_pairs, dtype=torch.float64)
        frequencies[1, : pairs // 2] = of_image
        frequencies[2, pairs // 2 : pairs] = of_image
        if self.of_text_model:
            exponents = torch.arange(self._TEXT_PAIRS).double() / self._TEXT_PAIRS
            frequencies[0, pairs:] = self._THETA**-exponents
        return frequencies

    def embed(self, coordinates: Int[Tensor, "*b axes"]) -> Float[Tensor, "*b w"] | None:
        """Return None."""
        return None

    def rotation(self, places: Tensor, dtype: torch.dtype) -> Rotation | None:
        """Rotate by scaled places [*b, l, 3]: text, row, column."""
        return rotation_of(places.double() @ self.frequencies, dtype)

    def text_places(self, length: int, num_axes: int, device: torch.device | None = None) -> Tensor:
        """Return j / L * side on the text axis."""
        places = torch.arange(length, device=device).double() / max(length, 1) * self.side
        return torch.nn.functional.pad(places[:, None], (0, 2))

    def image_places(self, coordinates: Int[Tensor, "n axes"], length: int | None) -> Tensor:
        """Return the scaled coordinates, at 0 on the text axis."""
        return torch.nn.functional.pad(coordinates.double() * self.image_scale, (1, 0))
