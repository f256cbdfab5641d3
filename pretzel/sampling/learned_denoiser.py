"""A small convolutional network that learns the clean latents while the flow learns the noised."""

import math

import torch
from torch import nn

from pretzel.errors import UserError
from pretzel.sampling.denoisers import LogDensity, TrainableDenoiser
from pretzel.typing import Float, Tensor

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)  # by the axes of the grid


class LearnedDenoiser(TrainableDenoiser):
    """x_hat = x + sigma f(x), f a residual convolutional network over the latent grid.

    Trained by ``mean (x_hat - clean)^2``, whose minimum is the posterior mean E[clean | x], which
    is what Tweedie's formula gives too (Efron 2011, equation 1.4: x + sigma^2 grad log p(x)). One
    pass of a small network takes the place of a gradient through the whole flow. It reads no text
    and knows the one noise level that it was trained with. The factor sigma gives f a target of
    unit scale, and makes no noise mean no change. The last layer starts at zero, so that training
    starts from no denoiser.

    Args:
        width: Channels of the network.
        num_blocks: Residual blocks of two convolutions.
        kernel_size: Side of the convolutions, an odd number of latent positions.

    Raises:
        UserError: If a number is below 1 or ``kernel_size`` even.
    """

    def __init__(self, width: int = 64, num_blocks: int = 2, kernel_size: int = 3) -> None:
        super().__init__()
        for name, value in (("width", width), ("num_blocks", num_blocks)):
            if value < 1:
                raise UserError(f"{name} must be at least 1, got {value}")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise UserError(f"kernel_size must be odd and positive, got {kernel_size}")
        self.width = width
        self.num_blocks = num_blocks
        self.kernel_size = kernel_size
        self.channels = 0
        self.grid: tuple[int, ...] = ()

    def fit_to(self, channels: int, grid: tuple[int, ...]) -> None:
        """Build the network for these sizes; its weights leave the global random state as it was.

        Raises:
            UserError: If the grid has more than three axes, or the network has other sizes already.
        """
        if self.grid:
            if (self.channels, self.grid) != (channels, grid):
                raise UserError(
                    f"LearnedDenoiser was built for {self.channels} channels on grid {self.grid}; "
                    f"it cannot be used for {channels} channels on grid {grid}"
                )
            return
        if not 1 <= len(grid) <= len(_CONVOLUTIONS):
            raise UserError(
                f"LearnedDenoiser needs a latent grid of 1, 2 or 3 axes, got grid {grid}"
            )
        self.channels, self.grid = channels, grid
        # Arms with and without it share what is drawn afterwards.
        with torch.random.fork_rng(devices=[]):
            self.input = self._convolution(channels, self.width)
            self.blocks = nn.ModuleList([self._block() for _ in range(self.num_blocks)])
            self.head = self._convolution(self.width, channels)
        # What is usual differs from place to place, which convolutions alone cannot know.
        self.position = nn.Parameter(torch.zeros(self.width, *grid))
        nn.init.zeros_(self.head.weight)
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    def _convolution(self, inputs: int, outputs: int) -> nn.Conv1d | nn.Conv2d | nn.Conv3d:
        return _CONVOLUTIONS[len(self.grid) - 1](
            inputs, outputs, self.kernel_size, padding=self.kernel_size // 2
        )

    def _block(self) -> nn.Sequential:
        return nn.Sequential(
            _ChannelNorm(self.width),
            nn.SiLU(),
            self._convolution(self.width, self.width),
            nn.SiLU(),
            self._convolution(self.width, self.width),
        )

    def _estimate(self, x: Float[Tensor, "m n d"], sigma: float) -> Float[Tensor, "m n d"]:
        if not self.grid:
            raise UserError("LearnedDenoiser: fit_to(channels, grid) must come before denoising")
        if x.shape[1:] != (math.prod(self.grid), self.channels):
            raise UserError(
                f"LearnedDenoiser takes latents [m, {math.prod(self.grid)}, {self.channels}] "
                f"(grid {self.grid}), got {tuple(x.shape)}"
            )
        maps = x.mT.reshape(len(x), self.channels, *self.grid)
        # Unnormalised along the trunk: the estimate depends on the size of x.
        h = self.input(maps) + self.position
        for block in self.blocks:
            h = h + block(h)
        estimate: Tensor = x + sigma * self.head(h).flatten(2).mT
        return estimate

    def forward(
        self, x: Float[Tensor, "m n d"], sigma: float, log_prob: LogDensity
    ) -> Float[Tensor, "m n d"]:
        """Run the network once; ``log_prob`` is not asked."""
        with torch.no_grad():
            return self._estimate(x, sigma)

    def loss(
        self, noised: Float[Tensor, "m n d"], clean: Float[Tensor, "m n d"], sigma: float
    ) -> Float[Tensor, " m"]:
        """Return the mean squared error of the estimate of each image."""
        error = self._estimate(noised.detach(), sigma) - clean.detach()
        return error.square().mean(dim=(1, 2))


class _ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each position: no position sees another through it."""

    def forward(self, h: Float[Tensor, "m w *grid"]) -> Float[Tensor, "m w *grid"]:
        return super().forward(h.movedim(1, -1)).movedim(-1, 1)
