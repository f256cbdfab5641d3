"""A flow block that knows little of the positions before: their mean, and the last of them."""

import torch
import torch.nn.functional as F
from torch import nn

from pretzel.errors import UserError
from pretzel.flow import AutoregressiveBlock, Permutation, RMSNorm, Transform
from pretzel.flow.context import Context
from pretzel.flow.positions import GridEmbedding
from pretzel.sequence.grid import grid_coordinates
from pretzel.typing import Float, Tensor


class RunningMeanBlock(AutoregressiveBlock[Tensor]):
    """Conditions position i on x_{i-1} and on the mean of x_0 .. x_{i-1}.

    The conditioner is written twice, for all positions at once (:meth:`condition`) and for one
    after the other (:meth:`step`); the laws check that both agree, and that no position sees
    itself or a later one. The head starts at zero, and with it the block as the identity.

    Args:
        channels: Channels D of a position (given by the parent, not in YAML).
        grid: Shape of the latent grid (given by the parent).
        num_layers: Residual layers (given by the split).
        permutation: Scan order (given by the parent).
        transform: Elementwise transform.
        width: Channels of the layers.

    Raises:
        UserError: If ``width`` is below 1.
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
    ) -> None:
        super().__init__(channels=channels, grid=grid, permutation=permutation, transform=transform)
        if width < 1:
            raise UserError(f"width must be at least 1, got {width}")
        self.input = nn.Linear(2 * channels, width)
        self.embedding = GridEmbedding(grid=grid, width=width)
        self.layers = nn.ModuleList(
            nn.Sequential(
                RMSNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
            )
            for _ in range(num_layers)
        )
        self.head = nn.Linear(width, self.num_params)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("coordinates", grid_coordinates(grid)[self.order], persistent=False)
        self.coordinates: Tensor

    def condition(
        self, x: Float[Tensor, "b n d"], context: Context | None = None
    ) -> Float[Tensor, "b n p"]:
        """Return the parameters of every position."""
        last = F.pad(x[:, :-1], (0, 0, 1, 0))  # of position 0: zeros
        counts = torch.arange(x.shape[1], device=x.device).clamp(min=1)[:, None]
        return self._params(last, last.cumsum(dim=1) / counts, self.coordinates)

    def new_cache(
        self,
        batch_size: int,
        context: Context | None = None,
        temperature: Float[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b d"]:
        """Return the sum of no positions.

        Raises:
            UserError: If a temperature is asked for: there is no attention.
        """
        if temperature is not None:
            raise UserError("temperature needs attention, RunningMeanBlock has none")
        return self.head.weight.new_zeros(batch_size, self.channels)

    def step(
        self, previous: Float[Tensor, "b d"] | None, index: int, cache: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b p"]:
        """Add the position before to the sum, and return the parameters of this one."""
        last = torch.zeros_like(cache) if previous is None else previous
        cache += last
        return self._params(last, cache / max(index, 1), self.coordinates[index])

    def _params(self, last: Tensor, mean: Tensor, coordinates: Tensor) -> Tensor:
        h = self.input(torch.cat([last, mean], dim=-1)) + self.embedding(coordinates)
        for layer in self.layers:
            h = h + layer(h)
        params: Tensor = self.head(h)
        return params
