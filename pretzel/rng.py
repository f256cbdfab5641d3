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


class StateWatch:
    """Tells which global random states were seeded or set since, instead of drawn from.

    Drawing goes on in a sequence, and restoring what was saved (``torch.random.fork_rng``) goes
    back into it; after ``torch.manual_seed(0)`` the numbers are others.
    """

    def __init__(self) -> None:
        self._seed = torch.default_generator.initial_seed()
        self._twisters = {name: _twister(name) for name in STATES[1:]}

    def reset(self, *names: str) -> list[str]:
        """Return those of ``torch``, ``numpy`` and ``random`` (Python's) that were, or of some."""
        return [name for name in names or STATES if self._is_reset(name)]

    def _is_reset(self, name: str) -> bool:
        if name == "torch":
            return torch.default_generator.initial_seed() != self._seed
        return not _comes_after(_twister(name), self._twisters[name])


STATES = ("torch", "numpy", "random")
_Twister = tuple[Any, int]
"""State of a Mersenne Twister: 624 words, and how many of them have been used."""


def _twister(name: str) -> _Twister:
    if name == "numpy":
        _, key, position, _, _ = np.random.get_state(legacy=True)
        return key, int(position)
    _, words, _ = random.getstate()
    return words[:-1], words[-1]


def _comes_after(new: _Twister, old: _Twister) -> bool:
    """Return whether the numbers of one state are further on in the sequence of the other."""
    if new[1] == old[1] and np.array_equal(new[0], old[0]):
        return True
    following, sequence = _generator(new).random_raw(_PATTERN), _generator(old)
    last, drawn = sequence.random_raw(_PATTERN), 0
    while drawn < MOST_DRAWN:
        chunk = min(max(drawn, 1024), 2**20)
        last, drawn = np.concatenate([last[-_PATTERN:], sequence.random_raw(chunk)]), drawn + chunk
        for start in np.flatnonzero(last[: 1 - _PATTERN] == following[0]):
            if np.array_equal(last[start : start + _PATTERN], following):
                return True
    return False


MOST_DRAWN = 2**27
"""Numbers beyond which a state counts as reset; a step draws fewer."""
_PATTERN = 4
"""Numbers of 32 bits that tell a place in a sequence of 2^19937 from all others that matter."""


def _generator(state: _Twister) -> np.random.MT19937:
    generator = np.random.MT19937(0)
    key = np.array(state[0], dtype=np.uint32)
    generator.state = {"bit_generator": "MT19937", "state": {"key": key, "pos": state[1]}}
    return generator


def _number(key: tuple[int | str, ...]) -> int:
    """Return a seed of 63 bits: torch takes no larger ones."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
