"""Denoisers: what is done about the training noise that a sample still carries."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch

from pretzel.typing import Float, Tensor

LogDensity = Callable[[Tensor], Tensor]


class Denoiser(ABC):
    """Estimates clean latents from noised ones."""

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


class NoDenoiser(Denoiser):
    """Leaves the noise in."""

    def __call__(
        self, x: Float[Tensor, "m n d"], sigma: float, log_prob: LogDensity
    ) -> Float[Tensor, "m n d"]:
        """Return x."""
        return x


class ScoreDenoiser(Denoiser):
    """Tweedie's formula with the flow's own score, x + sigma^2 grad log p(x) (TARFlow)."""

    def __call__(
        self, x: Float[Tensor, "m n d"], sigma: float, log_prob: LogDensity
    ) -> Float[Tensor, "m n d"]:
        """Take one exact gradient; leaves inference mode for it, as Lightning validates in it."""
        with torch.inference_mode(False), torch.enable_grad():
            point = x.clone().requires_grad_()
            (score,) = torch.autograd.grad(log_prob(point).sum(), point)
            return x + sigma**2 * score.detach()
