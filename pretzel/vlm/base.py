"""Contract of a vision-language model stream."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import nn

from pretzel.errors import UserError
from pretzel.sequence.special_tokens import SpecialTokens
from pretzel.typing import Bool, Float, Int, Tensor

AfterLayer = Callable[[int, Tensor], Tensor]
"""Maps the residual stream [b, l, h] after decoder layer i = 0, 1, ...: another stream joins it."""

MAX_TOKENS = 2048
"""Enough for means and covariances of embeddings and states."""


class VLMCache(ABC):
    """Keys and values of one generation, preallocated, owned by the caller."""

    @property
    @abstractmethod
    def length(self) -> int:
        """Positions committed so far, padding included."""

    @abstractmethod
    def rewind(self, num_positions: int) -> None:
        """Forget the last positions, which were provisional."""

    @abstractmethod
    def select(self, rows: Int[Tensor, " k"]) -> "VLMCache":
        """Return a cache of the given rows (repeats allowed), as long as this one."""


class VLMStream(nn.Module, ABC):
    """A frozen causal vision-language model run over an interleaved sequence.

    Its weights never train: they are in eval mode whatever ``train()`` says, ask for no gradient
    (gradients still pass *through* it, from its output to the image positions of its input), and
    are left out of optimizers and checkpoints, which name :attr:`identity` instead.

    Attributes:
        hidden_size: Width of its embeddings and of its last hidden state.
        num_layers: Decoder layers.
        vocab_size: Rows of its embedding.
        has_tower: Whether it has a vision tower to :meth:`encode_images` with.
        special: Ids of its special tokens.
        identity: Name and content hash of its weights, for checkpoints and ledgers.
        trained_by: Configuration of a stage that trains it on other texts; empty where there is
            none.
    """

    hidden_size: int
    num_layers: int
    vocab_size: int
    has_tower: bool = False
    special: SpecialTokens
    identity: str
    trained_by: ClassVar[str] = ""

    @property
    def num_new_tokens(self) -> int:
        """Special tokens that its vocabulary lacks."""
        largest: int = max(vars(self.special).values())
        return max(largest + 1 - self.vocab_size, 0)

    def image_index(self, grid: tuple[int, ...]) -> tuple[list[int], int]:
        """Return how the absolute index counts over an image.

        Args:
            grid: Latent grid.

        Returns:
            The offset of each position in raster order from that of the first, and by how much
            the index has gone on behind the image.
        """
        n = math.prod(grid)
        return list(range(n)), n

    def encode_images(
        self, images: Float[Tensor, "m 3 height width"]
    ) -> tuple[Float[Tensor, "m n h"], tuple[int, ...]]:
        """Return features of its own vision tower, one a position in raster order, and their grid.

        Pretzel itself puts adapted latents of the flow at image positions; these are for adapters
        on the tower, and to measure how well the frozen model answers by itself.

        Args:
            images: Pixels in [-1, 1].

        Raises:
            UserError: If it has no vision tower.
        """
        raise UserError(f"vlm {type(self).__name__} has no vision tower to encode images with")

    def some_tokens(self) -> Int[Tensor, " t"]:
        """Return tokens of the vocabulary, evenly spaced if there are more than 2048."""
        step = -(-self.vocab_size // MAX_TOKENS)  # rounded up
        return torch.arange(0, self.vocab_size, step, device=next(self.parameters()).device)

    def text_scale(self) -> float:
        """Return the root mean square of the embeddings of text."""
        return float(self.embed(self.some_tokens()[None]).square().mean().sqrt())

    def train(self, mode: bool = True) -> "VLMStream":
        """Stay in eval mode: a frozen model has no training behaviour."""
        # Lightning calls train() on the whole module, of which this is a part
        return super().train(False)

    def freeze(self) -> None:
        """Turn gradients of all weights off and enter eval mode (call last in ``__init__``)."""
        self.requires_grad_(False)
        self.eval()

    @abstractmethod
    def encode_text(self, text: str) -> list[int]:
        """Return token ids of ``text``, without special tokens."""

    @abstractmethod
    def decode_text(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids, special tokens left out."""

    @abstractmethod
    def embed(self, tokens: Int[Tensor, "b l"]) -> Float[Tensor, "b l h"]:
        """Return the embeddings of token ids."""

    @abstractmethod
    def forward(
        self,
        embeddings: Float[Tensor, "b l h"],
        index: Int[Tensor, "b l"],
        mask: Bool[Tensor, "b 1 l k"] | None = None,
        cache: VLMCache | None = None,
        coordinates: Int[Tensor, "b l a"] | None = None,
        after_layer: AfterLayer | None = None,
    ) -> Float[Tensor, "b l h"]:
        """Run the model and return its last hidden state, after its own final norm (y_vlm).

        Args:
            embeddings: Text embeddings and adapted image positions, interleaved.
            index: Absolute index of each position in its row.
            mask: True where a query (l) may attend a key (k: all positions of the cache, the new
                ones last). Without it attention is causal over equal-length or right-padded rows.
                A query that may attend nothing gives a finite state without meaning.
            cache: Receives the keys and values of the new positions; it comes from
                :meth:`new_cache`, and mask is then required to cover ``cache.length + l`` keys.
            coordinates: Place of each position on the grid of its image, zero at text, for models
                that count along the axes of an image.
            after_layer: Joins another stream after each layer, in the precision and on the device
                of ``embeddings``.

        Raises:
            ValueError: If there is a cache without a mask, one of another model, or a full one.
        """

    @abstractmethod
    def decoder_layers(self) -> nn.ModuleList:
        """Return its decoder layers in order."""

    @property
    @abstractmethod
    def final_norm(self) -> nn.Module:
        """The norm behind the last of them, whose output is y_vlm."""

    @abstractmethod
    def new_cache(self, batch_size: int, max_length: int) -> VLMCache:
        """Return an empty cache for ``batch_size`` rows of at most ``max_length`` positions."""

    @abstractmethod
    def logits(self, states: Float[Tensor, "*b h"]) -> Float[Tensor, "*b v"]:
        """Apply the model's own language head to last hidden states."""
