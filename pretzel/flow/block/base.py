"""The contract of flow blocks: invertible maps of a latent grid with a known log-determinant."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import nn

from pretzel.errors import UserError
from pretzel.flow.context import Context
from pretzel.flow.permutations import Permutation
from pretzel.flow.precision import at_least_float32, is_autocast
from pretzel.typing import Float, Tensor


@dataclass(frozen=True, kw_only=True)
class Flowed:
    """Output of a flow block.

    Attributes:
        z: The mapped positions, in the order of the input.
        logdet: log|det dz/dx| of each sample, in nats; at least float32.
    """

    z: Float[Tensor, "b n d"]
    logdet: Float[Tensor, " b"]


class FlowBlock(nn.Module, ABC):
    """An invertible map of latent grids with a known log-determinant.

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
        """Refuse an input or a context that the block cannot map.

        An input of the wrong shape or dtype, or not finite; a context that is missing, not read, or
        of another number of rows.

        Raises:
            UserError: Naming the block, the argument, the rule and the value.
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
        dtypes = [parameter.dtype for parameter in self.parameters()]
        # Mixed precision may have cast some of the parameters only.
        if dtypes and value.dtype not in dtypes and not is_autocast(value.device):
            raise UserError(
                f"{type(self).__name__} takes {name} of dtype {dtypes[0]}, that of its parameters, "
                f"unless autocast is on, got {value.dtype}"
            )
        self.check_finite(name, value)

    def check_finite(self, name: str, value: Tensor) -> None:
        """Refuse values that are not finite.

        Values of a training step are not checked: a guard names the step that diverges, and the
        check would make an accelerator wait.

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


def no_logdet(x: Float[Tensor, "b n d"]) -> Float[Tensor, " b"]:
    """Return the log-determinants of the identity."""
    return x.new_zeros(len(x), dtype=at_least_float32(x))
