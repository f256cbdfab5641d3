"""The contract of conditioners: the causal network inside an autoregressive block."""

from abc import ABC, abstractmethod
from typing import Generic, Protocol, TypeVar, runtime_checkable

from torch import nn

from pretzel.sequence.masks import Mask
from pretzel.typing import Float, Int, Tensor

CacheT = TypeVar("CacheT", bound="ConditionerCache")

Rotation = tuple[Tensor, ...]
"""Cosines and signed sines of positions, ready for :func:`pretzel.flow.positions.rotate`.

Behind them may stand the same as complex numbers, one for each channel pair, where they are made
once for many steps (:func:`pretzel.flow.decoding.with_turn`).
"""

Modulation = Float[Tensor, "b layers 6 w"]
"""Shift, scale and gate of attention, then of the MLP, for each layer (adaLN)."""


class ConditionerCache(ABC):
    """A conditioner's state of the positions before; allocated once, owned by the sampler.

    Attributes:
        length: Positions committed so far.
    """

    length: int

    @abstractmethod
    def rewind(self, num_positions: int) -> None:
        """Forget the last positions, which were provisional."""

    @abstractmethod
    def select(self, rows: Int[Tensor, " k"]) -> "ConditionerCache":
        """Return a cache of the given rows (repeats allowed), of the same ``max_length``."""


class Conditioner(nn.Module, ABC, Generic[CacheT]):
    """A causal network over hidden states: output i reads inputs 0..i.

    Shift, start token, positions, head and transform belong to the block: a conditioner only has to
    be causal, and to compute the same with a cache as without.

    Attributes:
        width: Channels of the hidden states.
        rotary_dim: Channels of a head that rotary positions rotate; 0 for a network without.
    """

    width: int
    rotary_dim: int = 0

    @abstractmethod
    def forward(
        self,
        h: Float[Tensor, "b l w"],
        rotation: Rotation | None = None,
        mask: Mask | None = None,
        cache: CacheT | None = None,
        modulation: Modulation | None = None,
    ) -> Float[Tensor, "b l w"]:
        """Return the states of new positions.

        Args:
            h: Inputs of the new positions.
            rotation: Their rotary positions; None where ``rotary_dim`` is 0.
            mask: Which position may read another, those of the cache first; None for causal
                reading over right-padded rows. A network that is not attention may refuse one.
            cache: Cache of the positions before; the new ones are committed to it.
            modulation: Modulation of every layer; a network without may refuse one.
        """

    @abstractmethod
    def new_cache(
        self, batch_size: int, max_length: int, temperature: Float[Tensor, " b"] | None = None
    ) -> CacheT:
        """Return an empty cache.

        Args:
            batch_size: Rows.
            max_length: Most positions that it is to hold.
            temperature: Divides the attention logits of each row; None for 1. A network without
                attention may refuse one.
        """


class LayeredConditioner(Conditioner[CacheT]):
    """A conditioner that can stop between layers, where another stream can be added.

    Attributes:
        num_layers: Layers.
    """

    num_layers: int

    def forward(
        self,
        h: Float[Tensor, "b l w"],
        rotation: Rotation | None = None,
        mask: Mask | None = None,
        cache: CacheT | None = None,
        modulation: Modulation | None = None,
    ) -> Float[Tensor, "b l w"]:
        """Run all layers, then :meth:`finish`; arguments as those of a conditioner."""
        h = self.run(h, 0, self.num_layers, rotation, mask, cache, modulation)
        return self.finish(h, cache)

    @abstractmethod
    def run(
        self,
        h: Float[Tensor, "b l w"],
        start: int,
        stop: int,
        rotation: Rotation | None = None,
        mask: Mask | None = None,
        cache: CacheT | None = None,
        modulation: Modulation | None = None,
    ) -> Float[Tensor, "b l w"]:
        """Run layers ``start`` to ``stop - 1``; arguments as in ``forward``.

        Nothing is committed to the cache before :meth:`finish`.
        """

    @abstractmethod
    def finish(
        self, h: Float[Tensor, "b l w"], cache: CacheT | None = None
    ) -> Float[Tensor, "b l w"]:
        """Return the states after the last layer's; commit the new positions to the cache."""


@runtime_checkable
class ConditionerFactory(Protocol):
    """Makes a conditioner for the layers that the split gives it."""

    def __call__(self, num_layers: int) -> Conditioner:  # type: ignore[type-arg]
        """Return a conditioner."""
