"""Norms over the channels of a residual stream."""

from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import nn

from pretzel.typing import Float, Tensor


class RMSNorm(nn.Module):
    """Root-mean-square norm with a learned gain (arXiv 1910.07467), at least in float32.

    Args:
        width: Channels normalised over.
    """

    eps = 1e-6

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "*b w"]) -> Float[Tensor, "*b w"]:
        """Normalise the last axis."""
        wide = torch.promote_types(x.dtype, torch.float32)
        return F.rms_norm(x.to(wide), self.weight.shape, self.weight.to(wide), self.eps).to(x.dtype)


class LayerNorm(nn.Module):
    """Layer norm with a learned gain and offset (arXiv 1607.06450), at least in float32.

    Args:
        width: Channels normalised over.
    """

    eps = 1e-5

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Float[Tensor, "*b w"]) -> Float[Tensor, "*b w"]:
        """Normalise the last axis."""
        wide = torch.promote_types(x.dtype, torch.float32)
        weight, bias = self.weight.to(wide), self.bias.to(wide)
        return F.layer_norm(x.to(wide), self.weight.shape, weight, bias, self.eps).to(x.dtype)


@runtime_checkable
class NormFactory(Protocol):
    """Makes a norm for the width of its stream."""

    def __call__(self, width: int) -> nn.Module:
        """Return a norm over the last axis."""
        ...
