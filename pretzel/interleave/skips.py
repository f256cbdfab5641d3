"""Skip connections: how one stream enters the residual stream of the other, and how it starts."""

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

import torch
from torch import nn
from typing_extensions import override

from pretzel.errors import UserError
from pretzel.typing import Bool, Float, Tensor


class SkipConnection(nn.Module, ABC):
    """Adds a map of one stream's states to the other's.

    Its call takes both, so that a hook on it sees what is added to what.

    Attributes:
        starts_at_zero: Whether it adds nothing before training.
    """

    starts_at_zero: bool

    @abstractmethod
    def contribution(self, source: Float[Tensor, "b l s"]) -> Float[Tensor, "b l t"]:
        """Return the term that is added, a map of the source."""

    def forward(
        self,
        target: Float[Tensor, "b l t"],
        source: Float[Tensor, "b l s"],
        where: Bool[Tensor, "b l"] | None = None,
    ) -> Float[Tensor, "b l t"]:
        """Return the target with the contribution added.

        Args:
            target: States of the stream that goes on.
            source: States of the other one.
            where: Positions at which it is added; None for all.
        """
        added = self.contribution(source)
        return target + (added if where is None else torch.where(where[..., None], added, 0.0))


class _LinearSkip(SkipConnection, ABC):
    def __init__(self, source: int, target: int) -> None:
        super().__init__()
        self.linear = nn.Linear(source, target, bias=False)

    @override
    def contribution(self, source: Float[Tensor, "b l s"]) -> Float[Tensor, "b l t"]:
        out: Tensor = self.linear(source)
        return out


class ZeroSkip(_LinearSkip):
    """W s, with W zero at the start (STARFlow2): the first gradient moves W alone.

    Args:
        source: Width of the states that are mapped (given by the interleaving).
        target: Width of those they are added to (given by the interleaving).
    """

    starts_at_zero = True

    def __init__(self, source: int, target: int) -> None:
        super().__init__(source, target)
        nn.init.zeros_(self.linear.weight)


class RandomSkip(_LinearSkip):
    """W s, with W random at the start, so that each stream is disturbed from the first step on.

    Args:
        source: Width of the states that are mapped (given by the interleaving).
        target: Width of those they are added to (given by the interleaving).
        scale: Size of what unit states are mapped to.

    Raises:
        UserError: If ``scale`` is not positive.
    """

    starts_at_zero = False

    def __init__(self, source: int, target: int, *, scale: float = 0.1) -> None:
        super().__init__(source, target)
        if not 0 < scale < float("inf"):
            raise UserError(f"scale must be positive and finite, got {scale}; ZeroSkip starts at 0")
        nn.init.normal_(self.linear.weight, std=scale * source**-0.5)


class GatedSkip(_LinearSkip):
    """tanh(g) W s, with the gate g zero at the start and W random (Flamingo, arXiv 2204.14198).

    One factor alone is zero: were both, neither would have a gradient.

    Args:
        source: Width of the states that are mapped (given by the interleaving).
        target: Width of those they are added to (given by the interleaving).
    """

    starts_at_zero = True

    def __init__(self, source: int, target: int) -> None:
        super().__init__(source, target)
        nn.init.normal_(self.linear.weight, std=source**-0.5)
        self.gate = nn.Parameter(torch.zeros(()))

    @override
    def contribution(self, source: Float[Tensor, "b l s"]) -> Float[Tensor, "b l t"]:
        out: Tensor = self.gate.tanh() * self.linear(source)
        return out


@runtime_checkable
class SkipFactory(Protocol):
    """Makes a skip connection between widths that the interleaving knows."""

    def __call__(self, source: int, target: int) -> SkipConnection:
        """Return a skip connection."""
        ...
