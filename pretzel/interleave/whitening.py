"""Whitening of the states of the frozen vision-language model that the flow reads.

A language model's last hidden state is made to predict the next token; what else it knows of the
text before, such as the colour in a caption, lives in directions of little variance (measured on
the tiny VLM: one direction holds 0.69 of the variance over the vocabulary, colour words differ by a
fifth of the norm). An adaptive optimizer takes steps of one size in all directions, so that over
raw states a projection shakes in the loud ones before it has found the quiet ones.
"""

import torch
from torch import nn

from pretzel.typing import Float, Tensor
from pretzel.vlm.base import AfterLayer, VLMStream

RIDGE = 0.01
"""Added to the eigenvalues, as a share of their mean: what varies less is not blown up."""


class Whitening(nn.Module):
    """The fixed affine map y -> (y - m) (C + ridge)^(-1/2), until it is fitted the identity.

    It is not trained and not saved: it follows from the frozen model, whose hash the checkpoint
    holds. Linear maps of its output are affine maps of y.
    """

    def __init__(self, *, hidden_size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(hidden_size), persistent=False)
        self.register_buffer("matrix", torch.eye(hidden_size), persistent=False)
        self.mean: Tensor
        self.matrix: Tensor

    def fit(self, vlm: VLMStream) -> None:
        """Take m and C as mean and covariance of the last hidden states at tokens."""
        if not self.mean.is_meta:
            self.fit_to(run_tokens(vlm)[:, 1])  # the token; before it stands the common word

    def fit_to(self, states: Float[Tensor, "t h"]) -> None:
        """Take m and C as mean and covariance of states."""
        states = states.double()  # variances of directions differ by orders of magnitude
        mean = states.mean(dim=0)
        centred = states - mean
        # (C + ridge)^(-1/2) by the eigenvectors of the symmetric C
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(states))
        scale = (values.clamp(min=0) + RIDGE * values.mean()).rsqrt()
        self.mean.copy_(mean)
        self.matrix.copy_((vectors * scale) @ vectors.T)

    def forward(self, y: Float[Tensor, "*b h"]) -> Float[Tensor, "*b h"]:
        """Whiten states; they come in the precision of the VLM and leave in that of the flow."""
        return (y - self.mean).to(self.matrix.dtype) @ self.matrix


@torch.no_grad()
def run_tokens(vlm: VLMStream, after_layer: AfterLayer | None = None) -> Float[Tensor, "t 2 h"]:
    """Run the model on one common word and a token behind it, for some tokens of the vocabulary.

    Of a large vocabulary these are evenly spaced.
    """
    tokens = vlm.some_tokens()
    # States at the first position of a sequence are outliers, hence one word before
    first = torch.full_like(tokens, vlm.encode_text("a")[0])
    index = torch.arange(2, device=tokens.device).expand(len(tokens), 2)
    states: Tensor = vlm(
        vlm.embed(torch.stack([first, tokens], dim=1)), index, after_layer=after_layer
    )
    return states
