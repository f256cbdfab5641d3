"""Preallocated keys and values behind the cache interface of transformers."""

from transformers.cache_utils import Cache, CacheLayerMixin

from pretzel.flow.cache import filled_rows
from pretzel.typing import Float, Int, Tensor
from pretzel.vlm.base import VLMCache


class PreallocatedLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """Keys and values of one layer, written in place.

    transformers' own ``StaticLayer`` returns the whole buffer, so its masks must cover positions
    that hold nothing yet; this one returns a view of the filled part.
    """

    def __init__(self, max_length: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.max_length = max_length
        self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate both buffers with the batch, heads, dtype and device of the first keys."""
        batch, heads, _, _ = key_states.shape
        self.keys = key_states.new_zeros(batch, heads, self.max_length, key_states.shape[-1])
        self.values = value_states.new_zeros(batch, heads, self.max_length, value_states.shape[-1])
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Float[Tensor, "b heads k c"], Float[Tensor, "b heads k c"]]:
        """Append keys and values ``[b, heads, l, c]`` and return all so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        end = self.length + key_states.shape[-2]
        assert end <= self.max_length, f"cache of {self.max_length} positions got {end}"
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the number of keys a mask must cover, and their offset."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """Return the number of positions filled."""
        return self.length

    def get_max_length(self) -> int:
        """Return the number of positions allocated."""
        return self.max_length


class PreallocatedCache(VLMCache):
    """Cache of a transformers model with full attention in every layer."""

    def __init__(self, num_layers: int, batch_size: int, max_length: int) -> None:
        self.batch_size = batch_size
        self.max_length = max_length
        self.layers = [PreallocatedLayer(max_length) for _ in range(num_layers)]
        # What the layers of transformers are handed: it finds each its own by number
        self.hub = Cache(layers=list(self.layers))

    @property
    def length(self) -> int:
        """Positions committed so far, padding included (by all layers)."""
        # They differ only inside a pass, and after one that was interrupted
        return min(layer.length for layer in self.layers)

    def rewind(self, num_positions: int) -> None:
        """Forget the last positions."""
        assert 0 <= num_positions <= self.length
        kept = self.length - num_positions
        for layer in self.layers:
            layer.length = kept  # layers that an interrupted pass left ahead included

    def select(self, rows: Int[Tensor, " k"]) -> "PreallocatedCache":
        """Return a cache of the given rows (repeats allowed), as long as this one."""
        chosen = type(self)(len(self.layers), len(rows), self.max_length)
        for new, old in zip(chosen.layers, self.layers, strict=True):
            if old.is_initialized:
                assert old.keys is not None
                assert old.values is not None
                new.keys = filled_rows(old.keys, rows, old.length)
                new.values = filled_rows(old.values, rows, old.length)
                new.length, new.is_initialized = old.length, True
        return chosen


def checked_cache(
    cache: VLMCache, mask: Tensor | None, embeddings: Float[Tensor, "b l h"]
) -> PreallocatedCache:
    """Return a cache that can take in embeddings.

    Raises:
        ValueError: If it is another kind of cache, it is full, its batch has another size, or there
            is no mask.
    """
    if not isinstance(cache, PreallocatedCache):
        raise ValueError(f"cache must come from new_cache, got {type(cache).__name__}")
    if mask is None:
        raise ValueError("mask is required with a cache, got None")
    rows, positions, _ = embeddings.shape
    if rows != cache.batch_size:
        raise ValueError(f"cache was made for batch_size={cache.batch_size} rows, got {rows}")
    if cache.length + positions > cache.max_length:
        raise ValueError(
            f"cache was made for max_length={cache.max_length} positions, "
            f"got {cache.length} + {positions}"
        )
    return cache
