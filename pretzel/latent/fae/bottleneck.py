"""Bottlenecks: features to a diagonal Gaussian of few channels at each position."""

from abc import ABC, abstractmethod
from typing import Protocol, final, runtime_checkable

import torch
from torch import nn

from pretzel.errors import UserError
from pretzel.flow.norms import RMSNorm
from pretzel.flow.sizes import check_sizes
from pretzel.latent.fae.transformer import GridAttention, self_attention
from pretzel.typing import Float, Tensor


class Bottleneck(nn.Module, ABC):
    """Maps standardised features to mean and log-variance of latents.

    Attributes:
        channels: Of the latents.
    """

    channels: int

    @abstractmethod
    def forward(
        self, features: Float[Tensor, "m n f"]
    ) -> tuple[Float[Tensor, "m n c"], Float[Tensor, "m n c"] | None]:
        """Return mean and log-variance; None for a deterministic map."""


@runtime_checkable
class BottleneckFactory(Protocol):
    """Makes a bottleneck for the features of an encoder."""

    def __call__(self, grid: tuple[int, int], features: int) -> Bottleneck:
        """Return a bottleneck."""


@final
class AttentionBottleneck(Bottleneck):
    """Self-attention layers, then one linear map: the encoder of FAE (arXiv 2512.07829).

    The paper has one layer, and shows that none and six are worse. A layer is attention alone, with
    a norm before it and a residual around it.

    Args:
        grid: Rows and columns of the features (given by the network).
        features: Channels of the features (given by the network).
        channels: Channels of the latents.
        num_layers: Attention layers; 0 for the linear map alone.
        head_dim: Channels of a head.

    Raises:
        UserError: If a size is not positive.
    """

    def __init__(
        self,
        grid: tuple[int, int],
        features: int,
        *,
        channels: int = 32,
        num_layers: int = 1,
        head_dim: int = 64,
    ) -> None:
        super().__init__()
        check_sizes(channels=channels)
        if num_layers < 0:
            raise UserError(f"num_layers must be 0 or positive, got {num_layers}")
        self.channels = channels
        self.num_layers = num_layers
        self.head_dim = head_dim
        self.places = GridAttention(grid=grid, head_dim=head_dim)
        self.norms = nn.ModuleList(RMSNorm(features) for _ in range(num_layers))
        self.attentions = nn.ModuleList(
            self_attention(features, head_dim) for _ in range(num_layers)
        )
        self.out = nn.Linear(features, 2 * channels)
        with torch.no_grad():  # little noise at first: the decoder learns to read before it rises
            self.out.weight[channels:] = 0
            self.out.bias[channels:] = -6

    def forward(
        self, features: Float[Tensor, "m n f"]
    ) -> tuple[Float[Tensor, "m n c"], Float[Tensor, "m n c"] | None]:
        """Return mean and log-variance."""
        x = features
        rotation, mask = self.places(x)
        for norm, attention in zip(self.norms, self.attentions, strict=True):
            x = x + attention(norm(x), rotation, mask, None, 0)
        mean, log_variance = self.out(x).chunk(2, dim=-1)
        return mean, log_variance.clamp(-20, 10)


@final
class NoBottleneck(Bottleneck):
    """The features themselves: all of their channels are latents.

    Args:
        grid: Rows and columns of the features (given by the network).
        features: Channels of the features (given by the network).
    """

    def __init__(self, grid: tuple[int, int], features: int) -> None:
        super().__init__()
        self.channels = features

    def forward(self, features: Float[Tensor, "m n f"]) -> tuple[Float[Tensor, "m n f"], None]:
        """Return the features."""
        return features, None
