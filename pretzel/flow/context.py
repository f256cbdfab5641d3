"""Conditioning of blocks on a context: as a prefix, an added vector, or adaLN.

A context is a batch of class labels, int64 [b] with -1 for "no class", or of text states,
[b, l, c]. The null context of guidance is one of the same kind.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from pretzel.errors import UserError
from pretzel.flow.conditioner import Modulation
from pretzel.flow.sizes import check_sizes
from pretzel.rng import stream
from pretzel.typing import Float, Tensor

Context = Tensor


@dataclass(frozen=True, kw_only=True)
class ContextInputs:
    """Inputs of a block's network made from a context; None for those that it does not have.

    Attributes:
        prefix: Inputs of positions that stand before the image.
        added: Vector added to the input of every image position.
        modulation: Shift, scale and gate for each layer.
    """

    prefix: Float[Tensor, "b l w"] | None = None
    added: Float[Tensor, "b w"] | None = None
    modulation: Modulation | None = None


class ContextReader(nn.Module, ABC):
    """Turns a context into inputs of the network of a block.

    Attributes:
        has_prefix: Whether positions are put before the image.
    """

    has_prefix: bool = False

    @abstractmethod
    def forward(self, context: Context) -> ContextInputs:
        """Return the network's inputs for a context."""

    @abstractmethod
    def example(self, num_rows: int) -> Context:
        """Return different contexts of the right kind, for the laws."""


class ContextVector(nn.Module, ABC):
    """Turns a context into one vector."""

    @abstractmethod
    def forward(self, context: Context) -> Float[Tensor, "b w"]:
        """Return the vector of each row."""

    @abstractmethod
    def example(self, num_rows: int) -> Context:
        """Return different contexts of the right kind, for the laws."""


@runtime_checkable
class VectorFactory(Protocol):
    """Makes a context vector for the width of its network."""

    def __call__(self, width: int) -> ContextVector:
        """Return a context vector."""


class ClassVector(ContextVector):
    """A learned vector for each class; their mean for no class (TarFlow).

    Args:
        width: Channels of the vector (given by the parent).
        num_classes: Classes.

    Raises:
        UserError: If there is no class.
    """

    def __init__(self, width: int, *, num_classes: int) -> None:
        super().__init__()
        check_sizes(num_classes=num_classes)
        self.num_classes = num_classes
        self.vectors = nn.Parameter(0.01 * torch.randn(num_classes, width))

    def forward(self, context: Context) -> Float[Tensor, "b w"]:
        """Look labels up.

        The range of labels on an accelerator is not checked, which would make it wait: a condition
        checks its own (:meth:`pretzel.tarflow.condition.Condition.check`).

        Raises:
            UserError: If the context is no batch of labels, or a label on a CPU is out of range.
        """
        if context.dim() != 1 or context.is_floating_point():
            raise UserError(
                f"context of a ClassVector must be labels [b], got {context.dtype} "
                f"of shape {tuple(context.shape)}"
            )
        if context.is_cpu and len(context) and int(context.max()) >= self.num_classes:
            raise UserError(
                f"context of a ClassVector must be labels below num_classes={self.num_classes} "
                f"(-1 for none), got {int(context.max())}"
            )
        is_null = (context < 0)[:, None]
        vectors = self.vectors[context.clamp(min=0)]
        return torch.where(is_null, self.vectors.mean(dim=0), vectors)

    def example(self, num_rows: int) -> Context:
        """Return all labels in turn, none included."""
        return torch.arange(num_rows) % (self.num_classes + 1) - 1


class TextReader(nn.Module):
    """Reads text states by a linear map."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        check_sizes(channels=channels)
        self.linear = nn.Linear(channels, width)

    def check(self, context: Context) -> None:
        """Refuse a context that is no batch of text states."""
        channels = self.linear.in_features
        if context.dim() != 3 or context.shape[-1] != channels or not context.is_floating_point():
            raise UserError(
                f"context of a {type(self).__name__} must be text states [b, l, {channels}], "
                f"got {context.dtype} of shape {tuple(context.shape)}"
            )

    def example(self, num_rows: int) -> Context:
        """Return random states of three tokens."""
        shape = (num_rows, 3, self.linear.in_features)
        return torch.randn(shape, generator=stream("context"), dtype=torch.float64)


class PooledText(TextReader, ContextVector):
    """A linear map of the mean text state.

    Args:
        width: Channels of the vector (given by the parent).
        channels: Channels of the text states.

    Raises:
        UserError: If there are no channels.
    """

    def __init__(self, width: int, *, channels: int) -> None:
        super().__init__(channels, width)

    def forward(self, context: Context) -> Float[Tensor, "b w"]:
        """Pool and map."""
        self.check(context)
        out: Tensor = self.linear(context.mean(dim=1))
        return out


class PrefixContext(TextReader, ContextReader):
    """Text states as positions before the image, mapped linearly; all are causal (STARFlow).

    Args:
        width: Channels of the network (given by the parent).
        num_layers: Layers of the network (given by the parent).
        channels: Channels of the text states.

    Raises:
        UserError: If there are no channels.
    """

    has_prefix = True

    def __init__(self, width: int, num_layers: int, *, channels: int) -> None:
        super().__init__(channels, width)

    def forward(self, context: Context) -> ContextInputs:
        """Map the states."""
        self.check(context)
        return ContextInputs(prefix=self.linear(context))


class VectorReader(ContextReader, ABC):
    """Reads a context by one vector of it.

    Args:
        width: Channels of the network (given by the parent).
        num_layers: Layers of the network (given by the parent).
        vector: Vector of a context.
    """

    def __init__(self, width: int, num_layers: int, *, vector: VectorFactory) -> None:
        super().__init__()
        self.vector = vector(width)

    def example(self, num_rows: int) -> Context:
        """Return contexts of the vector."""
        return self.vector.example(num_rows)


class AddedContext(VectorReader):
    """A vector of the context, added to the input of every position (TarFlow)."""

    def forward(self, context: Context) -> ContextInputs:
        """Return the vector."""
        return ContextInputs(added=self.vector(context))


class AdaLN(VectorReader):
    """A vector of the context that shifts, scales and gates both branches of every layer.

    The map from the vector starts at zero and a gate multiplies by 1 + gate, so that a block
    starts as one without context (adaLN-Zero, arXiv 2212.09748, starts with closed gates instead).

    Args:
        width: Channels of the network (given by the parent).
        num_layers: Layers of the network (given by the parent).
        vector: Vector of a context.
    """

    def __init__(self, width: int, num_layers: int, *, vector: VectorFactory) -> None:
        super().__init__(width, num_layers, vector=vector)
        self.map = nn.Linear(width, num_layers * 6 * width)
        nn.init.zeros_(self.map.weight)
        nn.init.zeros_(self.map.bias)

    def forward(self, context: Context) -> ContextInputs:
        """Return the modulation of every layer."""
        vector = self.vector(context)
        modulation = self.map(nn.functional.silu(vector))
        return ContextInputs(modulation=modulation.view(len(vector), -1, 6, vector.shape[-1]))


@runtime_checkable
class ContextFactory(Protocol):
    """Makes a context reader for sizes that its parent owns."""

    def __call__(self, width: int, num_layers: int) -> ContextReader:
        """Return a context reader."""
