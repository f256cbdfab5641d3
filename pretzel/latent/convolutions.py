"""Residual convolutions, and the decoder made of them."""

from typing import final

from torch import nn
from torch.nn.functional import silu

from pretzel.errors import UserError
from pretzel.typing import Float, Tensor

GROUP_WIDTH = 8
"""Channels of one group of GroupNorm."""


def check_widths(widths: tuple[int, ...]) -> None:
    """Refuse widths that GroupNorm cannot have.

    Raises:
        UserError: If there are none, or one is no multiple of 8.
    """
    if not widths or any(width < 1 or width % GROUP_WIDTH for width in widths):
        raise UserError(f"widths must be multiples of {GROUP_WIDTH}, at least one, got {widths}")


@final
class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a residual, each after GroupNorm and SiLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(width // GROUP_WIDTH, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.norm2 = nn.GroupNorm(width // GROUP_WIDTH, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Float[Tensor, "m c height width"]) -> Float[Tensor, "m c height width"]:
        """Return ``x`` plus its update."""
        y: Tensor = self.conv1(silu(self.norm1(x)))
        y = self.conv2(silu(self.norm2(y)))
        return x + y


def upsampling(channels: int, widths: tuple[int, ...], num_blocks: int) -> nn.Sequential:
    """Return layers from maps to images that are 2 ** len(widths) times as large.

    Args:
        channels: Channels of the maps.
        widths: Channels of the hidden layers, coarse to fine, one for each doubling.
        num_blocks: Residual blocks at each resolution.
    """
    layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 3, padding=1)]
    for i, width in enumerate(widths):
        layers += [ResidualBlock(width) for _ in range(num_blocks)]
        layers += [nn.GroupNorm(width // GROUP_WIDTH, width), nn.SiLU()]
        finer = widths[i + 1] if i + 1 < len(widths) else 3
        # Each coarse pixel becomes 2 x 2 finer ones (sub-pixel convolution, arXiv 1609.05158).
        layers += [nn.Conv2d(width, 4 * finer, 3, padding=1), nn.PixelShuffle(2)]
    return nn.Sequential(*layers)
