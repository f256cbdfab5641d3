"""A vision-language model whose states are known, and for which rows they are enough."""

from collections.abc import Sequence

import torch
from typing_extensions import override

from pretzel.typing import Bool, Float, Int, Tensor
from pretzel.vlm.base import AfterLayer, VLMCache, VLMStream


class KnownStates(VLMStream):
    """A vision-language model whose last hidden states of one batch are known already.

    Args:
        vlm: The model.
        states: Its states at text positions; anything finite elsewhere.
    """

    def __init__(self, vlm: VLMStream, states: Float[Tensor, "b l h"]) -> None:
        super().__init__()
        self._vlm = (vlm,)  # not a submodule
        self._states = states
        self.hidden_size, self.num_layers = vlm.hidden_size, vlm.num_layers
        self.vocab_size, self.special = vlm.vocab_size, vlm.special

    @property
    @override
    def identity(self) -> str:  # type: ignore[override]  # a hash may take a while: when asked
        return self._vlm[0].identity

    def forward(
        self,
        embeddings: Float[Tensor, "b l h"],
        index: Int[Tensor, "b l"],
        mask: Bool[Tensor, "b 1 l k"] | None = None,
        cache: VLMCache | None = None,
        coordinates: Int[Tensor, "b l a"] | None = None,
        after_layer: AfterLayer | None = None,
    ) -> Float[Tensor, "b l h"]:
        """Return the known states of the first columns."""
        assert cache is None
        assert after_layer is None
        return self._states[:, : embeddings.shape[1]].to(embeddings.dtype)

    @override
    def decoder_layers(self) -> torch.nn.ModuleList:
        return self._vlm[0].decoder_layers()

    @property
    @override
    def final_norm(self) -> torch.nn.Module:
        return self._vlm[0].final_norm

    @override
    def encode_text(self, text: str) -> list[int]:
        return self._vlm[0].encode_text(text)

    @override
    def decode_text(self, tokens: Sequence[int]) -> str:
        return self._vlm[0].decode_text(tokens)

    @override
    def embed(self, tokens: Int[Tensor, "b l"]) -> Float[Tensor, "b l h"]:
        return self._vlm[0].embed(tokens)

    @override
    def new_cache(self, batch_size: int, max_length: int) -> VLMCache:
        return self._vlm[0].new_cache(batch_size, max_length)

    @override
    def logits(self, states: Float[Tensor, "*b h"]) -> Float[Tensor, "*b v"]:
        return self._vlm[0].logits(states)


def prefix_lengths(
    tokens: Int[Tensor, "b l"], is_image: Bool[Tensor, "b l"], vlm: VLMStream
) -> list[int] | None:
    """Return how many text positions each row begins with; None if one goes on behind an image.

    End-of-image and padding do not count: nothing reads their states.

    Args:
        tokens: Token ids of right-padded rows.
        is_image: True at image positions.
        vlm: For its special tokens.
    """
    special = vlm.special
    is_filler = ~is_image & (tokens == special.pad)
    has_image = is_image.any(dim=1)
    columns = torch.arange(tokens.shape[1])
    end = torch.where(is_filler, 0, columns + 1).amax(dim=1)  # behind the last that is no padding
    first = torch.where(has_image, is_image.int().argmax(dim=1), end)
    inside = is_image.sum(dim=1)
    # text, one unbroken run of image positions, end-of-image
    behind = first + inside
    closing = tokens.gather(1, behind.clamp(max=tokens.shape[1] - 1)[:, None])[:, 0]
    is_closed = (end == behind) | ((end == behind + 1) & (closing == special.end_of_image))
    unbroken = torch.where(is_image, columns, -1).amax(dim=1) + 1 == behind
    if not (~has_image | (is_closed & unbroken)).all():
        return None
    return [int(n) for n in first]
