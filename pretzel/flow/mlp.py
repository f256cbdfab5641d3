"""MLPs: the position-wise branch of a transformer layer."""

import math
from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import nn

from pretzel.errors import UserError
from pretzel.typing import Float, Tensor


def _hidden_size(width: int, ratio: float) -> int:
    """Return the hidden size of an MLP; refuse one that is not positive."""
    if not 1 <= width * ratio < math.inf:
        raise UserError(f"ratio must give a positive hidden size at width={width}, got {ratio}")
    return int(width * ratio)


class FeedForward(nn.Module, ABC):
    """Position-wise branch of a transformer layer; its last linear map is called ``down``."""

    down: nn.Linear

    @abstractmethod
    def forward(self, x: Float[Tensor, "*b w"]) -> Float[Tensor, "*b w"]:
        """Map the last axis."""


class DenseFeedForward(FeedForward, ABC):
    """down(hidden(maps of x)): linear maps of one input, a pointwise function, a linear map.

    Attributes:
        inner_scale: Factor of what :meth:`scaled_hidden` takes.
        outer_scale: Factor that is missing in what it returns.
    """

    inner_scale: float = 1.0
    outer_scale: float = 1.0

    @property
    @abstractmethod
    def incoming(self) -> list[nn.Linear]:
        """The linear maps of the input, of one size."""

    @abstractmethod
    def hidden(self, *maps: Float[Tensor, "*b h"]) -> Float[Tensor, "*b h"]:
        """Return the hidden values from the outputs of the ``incoming`` maps."""

    def scaled_hidden(self, *maps: Float[Tensor, "*b h"]) -> Float[Tensor, "*b h"]:
        """Return hidden(maps / inner_scale) / outer_scale, where that takes fewer calls."""
        return self.hidden(*maps)

    def forward(self, x: Float[Tensor, "*b w"]) -> Float[Tensor, "*b w"]:
        """Map the last axis."""
        out: Tensor = self.down(self.hidden(*(linear(x) for linear in self.incoming)))
        return out


class MLP(DenseFeedForward):
    """Two linear maps with a GELU between: down(GELU(up(x))).

    Args:
        width: Channels in and out (given by the parent).
        bias: Whether the linear maps have one (given by the parent).
        ratio: Hidden size over ``width``.
    """

    inner_scale = outer_scale = 0.5**0.5

    def __init__(self, width: int, bias: bool, *, ratio: float = 4.0) -> None:
        super().__init__()
        hidden = _hidden_size(width, ratio)
        self.up = nn.Linear(width, hidden, bias=bias)
        self.down = nn.Linear(hidden, width, bias=bias)

    @property
    def incoming(self) -> list[nn.Linear]:
        """The map ``up``."""
        return [self.up]

    def hidden(self, *maps: Float[Tensor, "*b h"]) -> Float[Tensor, "*b h"]:
        """Return GELU(up)."""
        (up,) = maps
        return F.gelu(up)

    def scaled_hidden(self, *maps: Float[Tensor, "*b h"]) -> Float[Tensor, "*b h"]:
        """Return u + u erf(u), where GELU(x) = x (1 + erf(x / sqrt 2)) / 2."""
        (u,) = maps
        erf = u.erf()
        return torch.addcmul(u, u, erf, out=erf)


class GatedMLP(DenseFeedForward):
    """down(activation(gate(x)) * up(x)) (arXiv 2002.05202)."""

    def __init__(self, width: int, bias: bool, ratio: float) -> None:
        super().__init__()
        hidden = _hidden_size(width, ratio)
        self.gate = nn.Linear(width, hidden, bias=bias)
        self.up = nn.Linear(width, hidden, bias=bias)
        self.down = nn.Linear(hidden, width, bias=bias)

    @abstractmethod
    def activation(self, x: Float[Tensor, "*b h"]) -> Float[Tensor, "*b h"]:
        """Return the gate's values."""

    @property
    def incoming(self) -> list[nn.Linear]:
        """The maps ``gate`` and ``up``."""
        return [self.gate, self.up]

    def hidden(self, *maps: Float[Tensor, "*b h"]) -> Float[Tensor, "*b h"]:
        """Return activation(gate) * up."""
        gate, up = maps
        return self.activation(gate) * up


class SwiGLU(GatedMLP):
    """Gated MLP with SiLU.

    Args:
        width: Channels in and out (given by the parent).
        bias: Whether the linear maps have one (given by the parent).
        ratio: Hidden size over ``width``; 8/3 has as many parameters as an ungated MLP of 4.
    """

    def __init__(self, width: int, bias: bool, *, ratio: float = 8 / 3) -> None:
        super().__init__(width, bias, ratio)

    def activation(self, x: Float[Tensor, "*b h"]) -> Float[Tensor, "*b h"]:
        """Return SiLU of x."""
        return F.silu(x)


class GEGLU(GatedMLP):
    """Gated MLP with GELU, by tanh, as STARFlow's "SwiGLU" has it.

    Args:
        width: Channels in and out (given by the parent).
        bias: Whether the linear maps have one (given by the parent).
        ratio: Hidden size over ``width``.
    """

    def __init__(self, width: int, bias: bool, *, ratio: float = 4.0) -> None:
        super().__init__(width, bias, ratio)

    def activation(self, x: Float[Tensor, "*b h"]) -> Float[Tensor, "*b h"]:
        """Return GELU of x, by tanh."""
        return F.gelu(x, approximate="tanh")


@runtime_checkable
class MLPFactory(Protocol):
    """Makes the position-wise branch for sizes that its parent owns."""

    def __call__(self, width: int, bias: bool) -> FeedForward:
        """Return a map of the last axis."""
