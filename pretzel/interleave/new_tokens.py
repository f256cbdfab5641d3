"""Tokens that a frozen vocabulary lacks: begin- and end-of-image of a plain language model."""

import torch
from torch import nn

from pretzel.typing import Float, Int, Tensor
from pretzel.vlm.base import VLMStream


class NewTokens(nn.Module):
    """Learned embeddings and rows of the language head for ids from ``vlm.vocab_size`` on.

    They start as large as the embeddings of text are. Of the head's rows only begin-of-image's is
    ever a target; they start at zero.
    """

    def __init__(self, vlm: VLMStream) -> None:
        super().__init__()
        self.first = vlm.vocab_size
        shape = (vlm.num_new_tokens, vlm.hidden_size)
        scale = 1.0 if next(vlm.parameters()).is_meta else vlm.text_scale()
        self.embedding = nn.Parameter(scale * torch.randn(shape))
        self.head = nn.Parameter(torch.zeros(shape))

    def embed(self, tokens: Int[Tensor, "b l"], vlm: VLMStream) -> Float[Tensor, "b l h"]:
        """Return the embeddings of token ids, old and new."""
        is_new = tokens >= self.first
        old = vlm.embed(tokens.clamp(max=self.first - 1))
        # Both are looked up everywhere and one is chosen: no shape depends on the tokens
        new = self.embedding[(tokens - self.first).clamp(min=0)].to(old)
        return torch.where(is_new[..., None], new, old)

    def logits(self, states: Float[Tensor, "*b h"], vlm: VLMStream) -> Float[Tensor, "*b v"]:
        """Return the logits of the vocabulary, then of the new tokens."""
        old = vlm.logits(states)
        return torch.cat([old, (states.to(self.head) @ self.head.T).to(old)], dim=-1)
