"""An invertible map of a latent grid with a known log-determinant."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from pretzel.errors import UserError
from pretzel.flow.context import Context
from pretzel.flow.permutations import Permutation
from pretzel.typing import Float, Tensor


@dataclass(frozen=True, kw_only=True)
class Flowed:
    """What a block makes of its input.

    Attributes:
        z: The mapped positions, in the order of the input.
        logdet: log|det dz/dx| of each sample, in nats; at least float32.
    """

    z: Float[Tensor, "b n d"]
    logdet: Float[Tensor, " b"]


class FlowBlock(nn.Module, ABC):
    """An invertible map of token grids with a known log-determinant.

    Attributes:
        channels: Channels D of a position.
        grid: Shape of the latent grid.
        reads_context: Whether the map is conditioned; such a block is always given a context.
    """

    channels: int
    grid: tuple[int, ...]
    reads_context: bool = False

    @abstractmethod
    def forward(self, x: Float[Tensor, "b n d"], context: Context | None = None) -> Flowed:
        """Map data towards noise.

        Args:
            x: Positions, raster order.
            context: What the map is conditioned on; None for a block that reads none.
        """

    @abstractmethod
    def inverse(
        self, z: Float[Tensor, "b n d"], context: Context | None = None
    ) -> Float[Tensor, "b n d"]:
        """Map noise towards data: the exact inverse of :meth:`forward`."""

    def example_context(self, num_rows: int) -> Context | None:
        """Return different contexts of the right kind, for the laws; None without a context."""
        if self.reads_context:
            raise UserError(
                f"{type(self).__name__} reads a context and must define example_context(num_rows) "
                "for the laws"
            )
        return None

    def check(self, name: str, value: Tensor, context: Context | None) -> None:
        """Refuse an input or a context that cannot be the block's.

        Of the wrong shape or dtype, or not finite; a context that is missing, not read, or not of
        as many rows.

        Args:
            name: The argument, for the message.
            value: Positions.
            context: What came with them.

        Raises:
            UserError: Naming the block, the rule and the value.
        """
        positions = math.prod(self.grid)
        if value.dim() != 3 or value.shape[1:] != (positions, self.channels):
            raise UserError(
                f"{type(self).__name__} takes {name} of shape [b, {positions}, {self.channels}] "
                f"(grid {self.grid}), got {tuple(value.shape)}"
            )
        if self.reads_context != (context is not None):
            raise UserError(
                f"{type(self).__name__} "
                + ("reads a context, got none" if self.reads_context else "reads no context")
            )
        if context is not None and len(context) != len(value):
            raise UserError(
                f"{type(self).__name__} takes a context of {len(value)} rows, as many as {name}, "
                f"got {len(context)}"
            )
        self._check_dtype(name, value)
        self.check_finite(name, value)

    def _check_dtype(self, name: str, value: Tensor) -> None:
        """Refuse values that no parameter can be multiplied with."""
        kind = value.device.type
        if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
            return
        own = next(self.parameters(), None)
        # Mixed precision may have cast some of the parameters only.
        if own is not None and all(p.dtype != value.dtype for p in self.parameters()):
            raise UserError(
                f"{type(self).__name__} takes {name} of dtype {own.dtype}, that of its parameters, "
                f"unless autocast is on, got {value.dtype}"
            )

    def check_finite(self, name: str, value: Tensor) -> None:
        """Refuse values that are not finite.

        What a training step computes is not looked at: where it diverges, a guard says at which
        step, and an accelerator is not made to wait.

        Raises:
            UserError: Naming the block, the first such value and its place.
        """
        if (self.training and (value.requires_grad or value.is_cuda)) or value.is_meta:
            return
        finite = value.isfinite()
        if not bool(finite.all()):
            place = (~finite).nonzero()[0].tolist()
            raise UserError(
                f"{type(self).__name__}: {name} must be finite, "
                f"got {value[tuple(place)].item()} at {place}"
            )


@runtime_checkable
class BlockFactory(Protocol):
    """Makes a block for sizes that its parent owns."""

    def __call__(
        self, channels: int, grid: tuple[int, ...], num_layers: int, permutation: Permutation
    ) -> FlowBlock:
        """Return a block."""
        ...


def at_least_float32(x: Tensor) -> torch.dtype:
    """Return the dtype in which many numbers like these are summed."""
    return torch.promote_types(x.dtype, torch.float32)


def no_logdet(x: Float[Tensor, "b n d"]) -> Float[Tensor, " b"]:
    """Return the log-determinants of the identity."""
    return x.new_zeros(len(x), dtype=at_least_float32(x))
