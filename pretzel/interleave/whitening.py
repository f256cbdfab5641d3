"""How the text projection starts: from whitened states of the vision-language model.

A language model's last hidden state is made to predict the next token; what else it knows of the
text before, such as the colour in a caption, lives in directions of little variance (measured on
the tiny VLM: one direction holds 0.69 of the variance over the vocabulary, colour words differ by a
fifth of the norm). Whitening puts these directions on an equal footing at the start. Whether that,
or the learning rate of the projection, decides how fast captions are followed is not yet isolated.
"""

import torch
from torch import nn

from pretzel.typing import Float, Tensor
from pretzel.vlm.base import VLMStream

MAX_TOKENS = 2048
RIDGE = 0.01
"""Added to the eigenvalues, as a share of their mean: what varies less is not blown up."""


def token_states(vlm: VLMStream) -> Float[Tensor, "t h"]:
    """Return the last hidden state at each token of the vocabulary, after one common word.

    Of a large vocabulary, at most ``MAX_TOKENS`` evenly spaced tokens are taken.
    """
    device = next(vlm.parameters()).device
    size = vlm.logits(torch.zeros(1, vlm.hidden_size, device=device)).shape[-1]
    tokens = torch.arange(0, size, max(1, size // MAX_TOKENS), device=device)
    first = torch.full_like(tokens, vlm.encode_text("a")[0])
    index = torch.arange(2, device=device).expand(len(tokens), 2)
    with torch.no_grad():
        states: Tensor = vlm(vlm.embed(torch.stack([first, tokens], dim=1)), index)
    return states[:, 1]


def start_whitened(linear: nn.Linear, vlm: VLMStream) -> None:
    """Initialise a projection of VLM states to whiten the states of the vocabulary.

    W = Q (C + ridge)^(-1/2) / 2 and b = -W m, with m and C the mean and covariance of
    :func:`token_states` and Q a random (semi-)orthogonal matrix. It trains from there.
    """
    if linear.weight.is_meta:
        return
    states = token_states(vlm).double()
    mean = states.mean(dim=0)
    centred = states - mean
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(states))
    scale = (values.clamp(min=0) + RIDGE * values.mean()).rsqrt()
    rotation = nn.init.orthogonal_(torch.empty_like(linear.weight)).double()
    weight = 0.5 * rotation @ (vectors * scale) @ vectors.T
    with torch.no_grad():
        linear.weight.copy_(weight)
        linear.bias.copy_(-weight @ mean)
