"""Start of the scan: the input before the first position, whose parameters depend on no other."""

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from pretzel.typing import Float, Tensor


class Start(nn.Module, ABC):
    """Start of the scan, where there is no position before.

    Attributes:
        shifts_outputs: Whether the first position has no parameters (it passes unchanged) and the
            output at each position gives those of the next; otherwise a token stands before the
            first position, and inputs are shifted by one in the place of outputs.
    """

    shifts_outputs: bool = False

    @abstractmethod
    def forward(self, embed: nn.Linear) -> Float[Tensor, " w"]:
        """Return the network's input before the first position.

        Args:
            embed: The map of a latent position into the network.
        """


class StartToken(Start):
    """A learned input of the network.

    Args:
        channels: Not used (given by the parent).
        width: Channels of the network (given by the parent).
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.token = nn.Parameter(0.02 * torch.randn(width))

    def forward(self, embed: nn.Linear) -> Float[Tensor, " w"]:
        """Return the token."""
        return self.token


class LatentStart(Start):
    """A learned latent position, mapped like any other (STARFlow's ``sos_embed``).

    Args:
        channels: Channels of a latent position (given by the parent).
        width: Not used (given by the parent).
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(channels))

    def forward(self, embed: nn.Linear) -> Float[Tensor, " w"]:
        """Map the token."""
        out: Tensor = embed(self.token)
        return out


class ZeroShift(Start):
    """No token: outputs are shifted by one position, and the first passes unchanged (TarFlow).

    Args:
        channels: Not used (given by the parent).
        width: Not used (given by the parent).
    """

    shifts_outputs = True

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()

    def forward(self, embed: nn.Linear) -> Float[Tensor, " w"]:
        """Refuse: there is nothing before the first position."""
        raise AssertionError("a shifted block has no start")


@runtime_checkable
class StartFactory(Protocol):
    """Makes a start for sizes that its parent owns."""

    def __call__(self, channels: int, width: int) -> Start:
        """Return a start."""
