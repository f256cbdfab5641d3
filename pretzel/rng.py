"""Seeded random streams: one independent generator for each purpose.

Arms of an ablation that share a seed must see the same noise whatever else they draw (common
random numbers). A stream is therefore derived from a key, such as ``(seed, "noise", step)``,
and never from the global state.
"""

import hashlib

import torch


def stream(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return the generator that belongs to a key.

    Args:
        key: What the numbers are for, for example ``(seed, "noise", step)``. Equal keys give
            equal streams, in every process and on every machine.
        device: Where the numbers are drawn; CPU streams are the reproducible ones.

    Returns:
        A freshly seeded ``torch.Generator``.
    """
    digest = hashlib.sha256(repr(key).encode()).digest()
    generator = torch.Generator(device=device)
    generator.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return generator
