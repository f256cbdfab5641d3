"""Norms over the channels of a residual stream."""

from abc import ABC, abstractmethod
from typing import Protocol, TypeGuard, runtime_checkable

import torch
import torch.nn.functional as F
from torch import nn

from pretzel.flow.precision import at_least_float32
from pretzel.typing import Float, Tensor


class Norm(nn.Module, ABC):
    """Normalises the channels of each position."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "*b w"]) -> Float[Tensor, "*b w"]:
        """Normalise the last axis."""


class RMSNorm(Norm):
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
        wide = at_least_float32(x)
        return F.rms_norm(x.to(wide), self.weight.shape, self.weight.to(wide), self.eps).to(x.dtype)


class LayerNorm(Norm):
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
        wide = at_least_float32(x)
        weight, bias = self.weight.to(wide), self.bias.to(wide)
        return F.layer_norm(x.to(wide), self.weight.shape, weight, bias, self.eps).to(x.dtype)


@runtime_checkable
class NormFactory(Protocol):
    """Makes a norm for the width of its stream."""

    def __call__(self, width: int) -> Norm:
        """Return a norm over the last axis."""


def normalise(norm: nn.Module, x: Float[Tensor, "b l w"]) -> Float[Tensor, "b l w"]:
    """Apply a norm, an RMS norm of a single position on a CPU in fewer calls."""
    if is_step(norm, x):
        return over_rms(x).mul_(norm.weight)
    out: Tensor = norm(x)
    return out


def is_step(norm: nn.Module | None, x: Tensor) -> TypeGuard[RMSNorm]:
    """Tell whether an RMS norm is bound by its calls, not by arithmetic: one position, on a CPU."""
    return (
        type(norm) is RMSNorm
        and x.shape[-2] == 1
        and x.dtype in (torch.float32, torch.float64)
        and x.dtype == norm.weight.dtype
        and x.is_cpu
        and not torch.is_grad_enabled()
    )


def over_rms(x: Float[Tensor, "*b w"]) -> Float[Tensor, "*b w"]:
    """Return x over its root mean square, in a third of the calls of ``F.rms_norm`` on a CPU."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.addcmul(_EPS[x.dtype], norm, norm, value=1 / x.shape[-1]).rsqrt_() * x


_EPS = {dtype: torch.tensor(RMSNorm.eps, dtype=dtype) for dtype in (torch.float32, torch.float64)}
