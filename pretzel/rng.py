"""Seeded random streams: one independent generator for each purpose.

Arms of an ablation that share a seed must get the same noise whatever other numbers they draw
(common random numbers). A stream is therefore derived from a key, such as
``(seed, "noise", step)``, and never from the global state. The global states, from which dropout
and users' modules draw, can be seeded by key as well, and saved in a checkpoint.
"""

import hashlib
import random
from typing import Any

import numpy as np
import torch


def stream(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return the generator that belongs to a key.

    Args:
        key: Purpose of the numbers, for example ``(seed, "noise", step)``. Equal keys give
            equal streams, in every process and on every machine.
        device: Device of the generator; only CPU streams are equal on all machines.
    """
    return torch.Generator(device=device).manual_seed(_number(key))


def seed_global(*key: int | str) -> None:
    """Seed the global states of Python, numpy and torch, on all devices, by a key."""
    number = _number(key)
    random.seed(number)
    np.random.seed(number % 2**32)
    torch.manual_seed(number)


def global_states(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Return the global random states in types that ``torch.load(weights_only=True)`` reads.

    The state of a GPU is included where ``device`` is one.
    """
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    states = {
        "python": [version, list(words), gauss],
        "numpy": [str(kind), [int(x) for x in keys], int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
    }
    if torch.device(device).type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_global_states(states: dict[str, Any], device: torch.device | str = "cpu") -> None:
    """Restore states of :func:`global_states`; a GPU gets the saved state of one, if there is."""
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(states["torch"].cpu())
    if "cuda" in states and torch.device(device).type == "cuda":
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)


def _number(key: tuple[int | str, ...]) -> int:
    """Return a seed of 63 bits: torch takes no larger ones."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
