"""Media as integers, as files hold them and processes exchange them, and as floats in [-1, 1]."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Integer

from pretzel.typing import Float, Tensor

IntegerArray = Integer[np.ndarray, "..."]
"""Bytes of pixels, channels last, or 16-bit samples of sound, channels first."""

_SCALES = {torch.uint8: (127.5, 1.0), torch.int16: (32767.0, 0.0)}
"""Divisor of the integers of a type, and what is taken off then, to have floats in [-1, 1]."""


def stack_arrays(arrays: Sequence[IntegerArray]) -> Integer[Tensor, "n ..."]:
    """Return arrays, at least one and all of one shape, as one tensor; channels of pixels first."""
    first = _channels_first(arrays[0])
    stacked = np.empty((len(arrays), *first.shape), dtype=first.dtype)
    for place, array in zip(stacked, arrays, strict=True):
        place[...] = _channels_first(array)
    return torch.from_numpy(stacked)


def to_floats(stacks: Sequence[Integer[Tensor, "_ ..."]]) -> Float[Tensor, "n ..."]:
    """Return tensors of integers, one behind the other, as one float32 tensor in [-1, 1]."""
    count = sum(len(stack) for stack in stacks)
    scale, shift = _SCALES[stacks[0].dtype]
    floats = torch.empty(count, *stacks[0].shape[1:], dtype=torch.float32)
    items = (item for stack in stacks for item in stack)
    for place, item in zip(floats, items, strict=True):  # one by one they stay in the cache
        place.copy_(item).div_(scale).sub_(shift)
    return floats


def arrays_to_floats(arrays: Sequence[IntegerArray]) -> Float[Tensor, "n ..."]:
    """Return arrays, at least one and all of one shape, as one float32 tensor in [-1, 1]."""
    return to_floats([stack_arrays(arrays)])


def to_integers(
    items: Float[Tensor, "*shape"], dtype: torch.dtype = torch.uint8
) -> Integer[Tensor, "*shape"]:
    """Round items in [-1, 1] to bytes (pixels) or 16-bit integers (sound)."""
    scale, shift = _SCALES[dtype]
    low, high = (-1 + shift) * scale, (1 + shift) * scale
    return ((items.float() + shift) * scale).round().clamp(low, high).to(dtype)


def content_key(item: Float[Tensor, "..."], dtype: torch.dtype) -> str:
    """Return a name for an item in [-1, 1] that belongs to its content, rounded as in a file."""
    data = to_integers(item, dtype).cpu().numpy().tobytes()
    return hashlib.sha256(data).hexdigest()[:16]


def _channels_first(array: IntegerArray) -> IntegerArray:
    return np.moveaxis(array, -1, -3) if array.dtype == np.uint8 else array
