"""Preallocated key-value caches, owned by the sampler and passed to the model explicitly."""

import copy

import torch

from pretzel.flow.conditioner import ConditionerCache
from pretzel.flow.precision import linear_dtype
from pretzel.typing import Float, Int, Shaped, Tensor


class KVCache(ConditionerCache):
    """Keys and values of every layer of one causal transformer, allocated once.

    All rows share one write position: rows of different lengths are padded on the left and hidden
    by a mask. Keys are stored rotated, so a step costs nothing for the positions before it, and
    with their channels :func:`paired`.

    The shape is that of the keys: layers, rows, key-value heads, positions that fit, head width.
    ``reference`` is a weight that gives device and dtype; under autocast the dtype is the one that
    keys and values are computed in. ``temperature`` divides the attention logits of each row.

    Attributes:
        entries: Keys, then values, of every layer; zero where nothing has been written.
        max_length: Positions that fit.
        length: Positions committed so far.
        layout: Made by a transformer at first use, and shared with caches selected from this one.
    """

    def __init__(
        self,
        shape: tuple[int, int, int, int, int],
        reference: Tensor,
        temperature: Float[Tensor, " b"] | None = None,
    ) -> None:
        layers, *rest = shape
        self.entries: Float[Tensor, "layers 2 b heads n e"] = torch.zeros(
            layers, 2, *rest, dtype=linear_dtype(reference), device=reference.device
        )
        self.max_length = shape[-2]
        self.length = 0
        self.dtype = reference.dtype
        self.query_scale: Float[Tensor, "b 1 1 1"] | None = None
        self.layout: object = None
        self._layers: list[LayerEntries] | None = None
        if temperature is not None:
            self.set_temperature(temperature)

    def set_temperature(self, temperature: Float[Tensor, " b"]) -> None:
        """Divide the attention logits of each row from now on."""
        self.query_scale = (1 / temperature).to(self.entries.device, self.dtype)[
            :, None, None, None
        ]

    def write(
        self, layer: int, keys: Float[Tensor, "b heads l e"], values: Float[Tensor, "b heads l e"]
    ) -> tuple[Float[Tensor, "b heads k e"], Float[Tensor, "b heads k e"]]:
        """Store the new positions of one layer; return views of all positions so far.

        They are positions of the cache only after :meth:`commit`, when all layers have written.

        Raises:
            ValueError: If the positions do not fit.
        """
        end = self.end(keys.shape[2])
        for kind, new in enumerate((keys, values)):
            self.entries[layer, kind, :, :, self.length : end] = new
        stored = self.entries[layer, :, :, :, :end]
        return stored[0], stored[1]

    def end(self, num_positions: int) -> int:
        """Return how many positions there are with so many new ones.

        Raises:
            ValueError: If they do not fit.
        """
        end = self.length + num_positions
        if end > self.max_length:
            raise ValueError(f"cache holds max_length={self.max_length} positions, got {end}")
        return end

    @property
    def layers(self) -> list["LayerEntries"]:
        """Views of each layer, made at first use."""
        if self._layers is None:
            self._layers = [LayerEntries(of_layer) for of_layer in self.entries]
        return self._layers

    def __len__(self) -> int:
        return self.entries.shape[2]

    def commit(self, num_positions: int) -> None:
        """Keep the last ``num_positions``, which every layer has written."""
        self.length += num_positions

    def rewind(self, num_positions: int) -> None:
        """Forget the last positions.

        Raises:
            ValueError: If there are not as many.
        """
        if not 0 <= num_positions <= self.length:
            raise ValueError(f"cache holds {self.length} positions, cannot forget {num_positions}")
        self.length -= num_positions

    def select(self, rows: Int[Tensor, " k"]) -> "KVCache":
        """Return a cache of the given rows (repeats allowed), of the same ``max_length``."""
        chosen = copy.copy(self)
        chosen.entries = filled_rows(self.entries, rows, self.length)
        chosen._layers = None
        chosen.query_scale = None if self.query_scale is None else self.query_scale[rows]
        return chosen


class LayerEntries:
    """Views of one layer's keys and values, for products over all heads at once.

    Attributes:
        entries: Keys and values.
        keys: Keys of every row's heads, transposed.
        values: Values of every row's heads.
    """

    def __init__(self, entries: Float[Tensor, "2 b heads n e"]) -> None:
        self.entries = entries
        keys, values = entries.flatten(1, 2)
        self.keys: Float[Tensor, "g e n"] = keys.transpose(1, 2)
        self.values: Float[Tensor, "g n e"] = values


def filled_rows(
    cached: Float[Tensor, "*layers b h n d"], rows: Int[Tensor, " k"], length: int
) -> Float[Tensor, "*layers k h n d"]:
    """Return the given rows of a cache, of the same size; only filled positions are copied."""
    chosen = cached.new_zeros(*cached.shape[:-4], len(rows), *cached.shape[-3:])
    chosen[..., :length, :] = cached[..., rows, :, :length, :]
    return chosen


def paired(x: Shaped[Tensor, "*b e"]) -> Shaped[Tensor, "*b e"]:
    """Return the channels of heads with rotary pairs (j, j + e/2) side by side; odd heads as is.

    Products of queries and keys are the same in any order of channels.
    """
    if x.shape[-1] % 2:
        return x
    halves = x.reshape(*x.shape[:-1], 2, x.shape[-1] // 2)
    return halves.transpose(-1, -2).flatten(-2)
