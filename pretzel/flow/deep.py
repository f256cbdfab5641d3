"""The deep stream: a causal TarFlow transformer over the interleaved sequence."""

from typing import Protocol, runtime_checkable

from torch import nn

from pretzel.flow.positions import AxialRotary, GridEmbedding
from pretzel.flow.transformer import CausalTransformer
from pretzel.flow.transforms import Transform
from pretzel.sampling.cache import KVCache
from pretzel.typing import Bool, Float, Int, Tensor


class DeepStream(nn.Module):
    """The deep autoregressive block, over text and image positions alike.

    Unlike a shallow block it shares its positions with the vision-language model: the input at an
    image position is that position's own u, and the state *before* it (begin-of-image for the
    first) gives its parameters. The interleaving decides what enters beside u.

    Args:
        channels: Channels D of u (given by the parent).
        grid: Shape of the latent grid (given by the parent).
        num_layers: Layers (given by the split).
        transform: Elementwise transform of u given the state before.
        width: Channels of the transformer.
        head_dim: Channels of an attention head.
        mlp_ratio: Hidden size of the MLPs over ``width``.
        theta: Base of the rotary frequencies, text axis and grid axes.
    """

    def __init__(
        self,
        channels: int,
        grid: tuple[int, ...],
        num_layers: int,
        *,
        transform: Transform,
        width: int,
        head_dim: int,
        mlp_ratio: float = 4.0,
        theta: float = 100.0,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.width = width
        self.transform = transform
        self.input = nn.Linear(channels, width)
        self.embedding = GridEmbedding(grid=grid, width=width)
        self.rotary = AxialRotary(head_dim=head_dim, num_axes=1 + len(grid), theta=theta)
        self.transformer = CausalTransformer(
            width=width, num_layers=num_layers, head_dim=head_dim, mlp_ratio=mlp_ratio
        )
        self.head = nn.Linear(width, transform.params_per_channel * channels)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def embed(
        self, u: Float[Tensor, "b l d"], positions: Int[Tensor, "b l a"]
    ) -> Float[Tensor, "b l w"]:
        """Return P_in(u) with the learned embedding of the place on the grid."""
        out: Tensor = self.input(u) + self.embedding(positions[..., 1:])
        return out

    def forward(
        self,
        inputs: Float[Tensor, "b l w"],
        positions: Int[Tensor, "b l a"],
        mask: Bool[Tensor, "b 1 l k"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "b l w"]:
        """Return y_D, the last hidden state after the final norm, for every position.

        Args:
            inputs: c_t, what the interleaving lets in at each position.
            positions: Text axis, then the coordinates of the grid.
            mask: True where a query may attend a key; None for causal over right-padded rows.
            cache: Keys and values of the positions before.
        """
        out: Tensor = self.transformer(inputs, self.rotary(positions, inputs.dtype), mask, cache)
        return out

    def params(self, before: Float[Tensor, "*b w"]) -> Float[Tensor, "*b p"]:
        """Return raw transform parameters of u_n from the state before position n."""
        out: Tensor = self.head(before)
        return out


@runtime_checkable
class DeepFactory(Protocol):
    """Makes the deep stream for sizes that its parent owns."""

    def __call__(self, channels: int, grid: tuple[int, ...], num_layers: int) -> DeepStream:
        """Return a deep stream."""
        ...
