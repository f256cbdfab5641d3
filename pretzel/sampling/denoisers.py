"""Denoisers: what is done about the training noise that a sample still carries."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import nn

from pretzel.typing import Float, Tensor

LogDensity = Callable[[Tensor], Tensor]


class Denoiser(ABC):
    """Estimates clean latents from noised ones."""

    def fit_to(self, channels: int, grid: tuple[int, ...]) -> None:
        """Take the sizes of the latent space, once, before anything is denoised.

        Args:
            channels: Channels D of a latent position.
            grid: Shape of the latent grid.
        """
        return

    @abstractmethod
    def __call__(
        self, x: Float[Tensor, "m n d"], sigma: float, log_prob: LogDensity
    ) -> Float[Tensor, "m n d"]:
        """Return clean latents.

        Args:
            x: Samples of the noised distribution.
            sigma: Standard deviation of the noise.
            log_prob: Exact unguided conditional log-density [m] of noised latents.
        """


class TrainableDenoiser(nn.Module, Denoiser, ABC):
    """A denoiser with parameters, which train beside the flow and never through it.

    Its ``__call__`` is that of ``torch.nn.Module``: a subclass gives ``forward`` with the
    arguments of :meth:`Denoiser.__call__`, and must take latents made under inference mode.
    """

    @abstractmethod
    def loss(
        self, noised: Float[Tensor, "m n d"], clean: Float[Tensor, "m n d"], sigma: float
    ) -> Float[Tensor, " m"]:
        """Return what is minimised, for each image; the mean over the global batch is taken.

        Args:
            noised: Latents with noise, data: nothing is differentiated with respect to them.
            clean: The same latents without it.
            sigma: Standard deviation of the noise.
        """


class NoDenoiser(Denoiser):
    """Leaves the noise in."""

    evaluation_only: ClassVar[bool] = True

    def __call__(
        self, x: Float[Tensor, "m n d"], sigma: float, log_prob: LogDensity
    ) -> Float[Tensor, "m n d"]:
        """Return x."""
        return x


class ScoreDenoiser(Denoiser):
    """Tweedie's formula with the flow's own score, x + sigma^2 grad log p(x) (TARFlow)."""

    evaluation_only: ClassVar[bool] = True

    def __call__(
        self, x: Float[Tensor, "m n d"], sigma: float, log_prob: LogDensity
    ) -> Float[Tensor, "m n d"]:
        """Take one exact gradient; leaves inference mode for it, as Lightning validates in it."""
        with torch.inference_mode(False), torch.enable_grad():
            point = x.clone().requires_grad_()
            (score,) = torch.autograd.grad(log_prob(point).sum(), point)
            return x + sigma**2 * score.detach()
