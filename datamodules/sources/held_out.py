"""Shares of training samples that are held out, chosen by a hash of the key."""

import hashlib
from collections.abc import Mapping

from datamodules.sources.source import Split
from pretzel.errors import UserError


def check_shares(shares: Mapping[str, float]) -> None:
    """Refuse shares that leave no training samples; each goes by the name of its argument.

    Raises:
        UserError: If one is not between 0 and 1, or their sum is 1 or more.
    """
    for name, share in shares.items():
        if not 0 < share < 1:
            raise UserError(f"{name} must be between 0 and 1, got {share}")
    if sum(shares.values()) >= 1:
        raise UserError(
            f"{' and '.join(shares)} must leave training samples, got "
            f"{' and '.join(map(str, shares.values()))}"
        )


def split_of(key: str, shares: Mapping[Split, float]) -> Split:
    """Return the split of a training sample, of which shares are held out for other splits.

    Neither order nor other samples change it: data to which samples are added keeps every one
    where it was.
    """
    place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    for split, share in shares.items():
        if place < share:
            return split
        place -= share
    return "train"
