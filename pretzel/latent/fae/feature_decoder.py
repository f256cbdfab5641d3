"""Feature decoders: latents back to the features of the frozen encoder."""

from abc import ABC, abstractmethod
from typing import Protocol, final, runtime_checkable

from torch import nn

from pretzel.errors import UserError
from pretzel.latent.fae.transformer import GridTransformer
from pretzel.typing import Float, Tensor


class FeatureDecoder(nn.Module, ABC):
    """Maps latents, clean or noised, to standardised features."""

    @abstractmethod
    def forward(self, latents: Float[Tensor, "m n c"]) -> Float[Tensor, "m n f"]:
        """Return features."""


@runtime_checkable
class FeatureDecoderFactory(Protocol):
    """Makes a feature decoder for the latents of a bottleneck."""

    def __call__(self, grid: tuple[int, int], channels: int, features: int) -> FeatureDecoder:
        """Return a feature decoder."""


@final
class TransformerFeatureDecoder(FeatureDecoder):
    """A transformer with RoPE, RMSNorm and SwiGLU (arXiv 2512.07829: six layers).

    Args:
        grid: Rows and columns of the latents (given by the network).
        channels: Channels of the latents (given by the network).
        features: Channels of the features (given by the network).
        width: Channels of the residual stream.
        num_layers: Layers.
        head_dim: Channels of a head.

    Raises:
        UserError: If a size is not positive.
    """

    def __init__(
        self,
        grid: tuple[int, int],
        channels: int,
        features: int,
        *,
        width: int,
        num_layers: int = 6,
        head_dim: int = 64,
    ) -> None:
        super().__init__()
        self.width = width
        self.num_layers = num_layers
        self.head_dim = head_dim
        self.transformer = GridTransformer(
            grid=grid, width=width, num_layers=num_layers, head_dim=head_dim
        )
        self.input = nn.Linear(channels, width)
        self.out = nn.Linear(width, features)

    def forward(self, latents: Float[Tensor, "m n c"]) -> Float[Tensor, "m n f"]:
        """Return features."""
        out: Tensor = self.out(self.transformer(self.input(latents)))
        return out


@final
class NoFeatureDecoder(FeatureDecoder):
    """The latents themselves, for latents that are features.

    Args:
        grid: Rows and columns of the latents (given by the network).
        channels: Channels of the latents (given by the network).
        features: Channels of the features (given by the network).

    Raises:
        UserError: If there are not as many channels as features.
    """

    def __init__(self, grid: tuple[int, int], channels: int, features: int) -> None:
        super().__init__()
        if channels != features:
            raise UserError(
                f"NoFeatureDecoder needs as many latent channels as features, {features}, "
                f"got {channels}"
            )

    def forward(self, latents: Float[Tensor, "m n c"]) -> Float[Tensor, "m n c"]:
        """Return the latents."""
        return latents
