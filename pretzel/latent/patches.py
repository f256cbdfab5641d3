"""Patches of any medium as latents."""

import math
from typing import final

import torch

from pretzel.errors import UserError
from pretzel.latent.base import LatentSpace, check_noise
from pretzel.media.base import Medium
from pretzel.typing import Float, Tensor


@final
class Patches(LatentSpace):
    """Patches of pictures, videos or sounds as latents, an exact change of variables.

    The grid has the axes of the medium but its channels: time, rows and columns of a video, time
    alone of a sound. Of a patch, channels run first, then those axes.

    Args:
        medium: Kind and size of the items.
        patch: Sides of a patch, one for each axis of the grid, each of which must divide it.
        noise: Standard deviation of the training noise, items scaled to [-1, 1].

    Raises:
        UserError: If ``patch`` does not fit the medium, or ``noise`` is negative or not finite.
    """

    def __init__(self, medium: Medium, patch: list[int], noise: float) -> None:
        super().__init__()
        check_noise(noise)
        self._medium = medium
        self._colour_axis = 1 + channel_axis(medium)  # behind that of the batch
        sides = [*medium.shape]
        colours = sides.pop(self._colour_axis - 1)
        fits = len(patch) == len(sides) and all(
            p > 0 and not s % p for p, s in zip(patch, sides, strict=True)
        )
        if not fits:
            raise UserError(
                f"patch must hold a divisor of each of {sides} ({medium}), got {list(patch)}"
            )
        self.patch = tuple(patch)
        self.noise = noise
        self.grid = tuple(s // p for p, s in zip(patch, sides, strict=True))
        self.channels = colours * math.prod(patch)

    @property
    def medium(self) -> Medium:
        """Kind and size of the items."""
        return self._medium

    @property
    def identity(self) -> str:
        """Name, medium and sides."""
        return f"patches:{self.medium}/{'x'.join(map(str, self.patch))}"

    def encode(self, images: Float[Tensor, "m ..."]) -> Float[Tensor, "m n d"]:
        """Cut items into patches, positions in raster order."""
        self.check_size(images)
        x = images.movedim(self._colour_axis, 1)
        m, colours = x.shape[:2]
        axes = len(self.grid)
        sides = [side for pair in zip(self.grid, self.patch, strict=True) for side in pair]
        x = x.reshape(m, colours, *sides)
        order = [0, *range(2, 2 + 2 * axes, 2), 1, *range(3, 3 + 2 * axes, 2)]
        return x.permute(order).reshape(m, self.num_positions, self.channels)

    def decode(self, latents: Float[Tensor, "m n d"]) -> Float[Tensor, "m ..."]:
        """Put the patches back together."""
        m, axes = len(latents), len(self.grid)
        colours = self.channels // math.prod(self.patch)
        x = latents.reshape(m, *self.grid, colours, *self.patch)
        pairs = [axis for i in range(axes) for axis in (1 + i, 2 + axes + i)]
        x = x.permute([0, 1 + axes, *pairs])
        sides = [g * p for g, p in zip(self.grid, self.patch, strict=True)]
        return x.reshape(m, colours, *sides).movedim(1, self._colour_axis)


def channel_axis(medium: Medium) -> int:
    """Return which axis of an item holds its channels: colours, or channels of sound."""
    return len(medium.shape) - 3 if medium.dtype == torch.uint8 else 0
