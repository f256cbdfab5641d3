"""Preallocated key-value caches, owned by the sampler and passed to the model explicitly."""

import copy

import torch

from pretzel.flow.conditioner import ConditionerCache
from pretzel.flow.precision import linear_dtype
from pretzel.typing import Float, Int, Tensor


class KVCache(ConditionerCache):
    """Keys and values of every layer of one causal transformer, allocated once.

    All rows share one write position: rows of different lengths are padded on the left and hidden
    by a mask. Keys are stored rotated, so a step costs nothing for the positions before it.

    The shape is that of the keys: layers, rows, key-value heads, positions that fit, head width.
    ``reference`` is a weight that gives device and dtype; under autocast the dtype is the one that
    keys and values are computed in. ``temperature`` divides the attention logits of each row.
    """

    def __init__(
        self,
        shape: tuple[int, int, int, int, int],
        reference: Tensor,
        temperature: Float[Tensor, " b"] | None = None,
    ) -> None:
        self.keys = torch.empty(shape, dtype=linear_dtype(reference), device=reference.device)
        self.values = torch.empty_like(self.keys)
        self.max_length = shape[-2]
        self.length = 0
        self.dtype = reference.dtype
        self.query_scale: Float[Tensor, "b 1 1 1"] | None = None
        if temperature is not None:
            self.set_temperature(temperature)

    def set_temperature(self, temperature: Float[Tensor, " b"]) -> None:
        """Divide the attention logits of each row from now on."""
        self.query_scale = (1 / temperature).to(self.keys.device, self.dtype)[:, None, None, None]

    def write(
        self, layer: int, keys: Float[Tensor, "b heads l e"], values: Float[Tensor, "b heads l e"]
    ) -> tuple[Float[Tensor, "b heads k e"], Float[Tensor, "b heads k e"]]:
        """Store the new positions of one layer; return views of all positions so far.

        They are positions of the cache only after :meth:`commit`, when all layers have written.

        Raises:
            ValueError: If the positions do not fit.
        """
        end = self.length + keys.shape[2]
        if end > self.max_length:
            raise ValueError(f"cache holds max_length={self.max_length} positions, got {end}")
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

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
        chosen.keys = filled_rows(self.keys, rows, self.length)
        chosen.values = filled_rows(self.values, rows, self.length)
        chosen.query_scale = None if self.query_scale is None else self.query_scale[rows]
        return chosen


def filled_rows(
    cached: Float[Tensor, "*layers b h n d"], rows: Int[Tensor, " k"], length: int
) -> Float[Tensor, "*layers k h n d"]:
    """Return the given rows of a cache, of the same size; only filled positions are copied."""
    chosen = cached.new_empty(*cached.shape[:-4], len(rows), *cached.shape[-3:])
    chosen[..., :length, :] = cached[..., rows, :, :length, :]
    return chosen
