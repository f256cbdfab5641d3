"""The identity as a flow block."""

from pretzel.flow.block.base import FlowBlock, Flowed, no_logdet
from pretzel.flow.context import Context
from pretzel.flow.permutations import Permutation
from pretzel.flow.sizes import check_grid, check_sizes
from pretzel.typing import Float, Tensor


class Identity(FlowBlock):
    """The identity: a block without layers.

    Args:
        channels: Channels D of a position (given by the parent).
        grid: Shape of the latent grid (given by the parent).
        num_layers: Not used (given by the parent).
        permutation: Not used (given by the parent).

    Raises:
        UserError: If there are no channels or no positions.
    """

    def __init__(
        self, channels: int, grid: tuple[int, ...], num_layers: int, permutation: Permutation
    ) -> None:
        super().__init__()
        check_sizes(channels=channels)
        check_grid(grid)
        self.channels = channels
        self.grid = grid

    def forward(self, x: Float[Tensor, "b n d"], context: Context | None = None) -> Flowed:
        """Return x."""
        self.check("x", x, context)
        return Flowed(z=x.clone(), logdet=no_logdet(x))

    def inverse(
        self, z: Float[Tensor, "b n d"], context: Context | None = None
    ) -> Float[Tensor, "b n d"]:
        """Return z."""
        self.check("z", z, context)
        return z.clone()
