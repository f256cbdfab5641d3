"""Readings of the VLM's residual stream between two of its layers, for the flow.

The residual stream is not read as it is: it grows from layer to layer, and at some
positions, such as the first, by orders of magnitude more than at others. The VLM's own layers read
it through a norm of each position; so does the flow. Then it is whitened, for the reason that
:mod:`pretzel.interleave.whitening` gives, by what tokens look like at that very depth.
"""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import nn

from pretzel.flow.precision import at_least_float32
from pretzel.interleave.whitening import Whitening, run_tokens
from pretzel.typing import Float, Tensor
from pretzel.vlm.base import VLMStream


class ResidualReading(nn.Module):
    """Each position over its root mean square, then whitened or not; nothing in it is trained."""

    def __init__(self, *, hidden_size: int, whiten: bool) -> None:
        super().__init__()
        self.whitening = Whitening(hidden_size=hidden_size) if whiten else None

    def fit(self, states: Float[Tensor, "t h"]) -> None:
        """Take mean and covariance of normalised states."""
        if self.whitening is None or self.whitening.mean.is_meta:
            return
        self.whitening.fit_to(normalised(states))

    def forward(self, h: Float[Tensor, "*b h"]) -> Float[Tensor, "*b h"]:
        """Return the reading of states."""
        read: Tensor = normalised(h)
        return read if self.whitening is None else self.whitening(read)


def normalised(h: Float[Tensor, "*b h"]) -> Float[Tensor, "*b h"]:
    """Return states over their root mean square, position by position, float32 at least."""
    return F.rms_norm(h.to(at_least_float32(h)), h.shape[-1:])


def fit_readings(readings: Mapping[int, ResidualReading], vlm: VLMStream) -> None:
    """Fit each to the states of tokens after the layer of the VLM it reads behind, in one run."""
    is_raw = all(reading.whitening is None for reading in readings.values())
    if is_raw or vlm.some_tokens().is_meta:
        return

    def after_layer(number: int, h: Tensor) -> Tensor:
        if number in readings:
            readings[number].fit(h[:, 1])  # the token; before it stands the common word
        return h

    run_tokens(vlm, after_layer)
