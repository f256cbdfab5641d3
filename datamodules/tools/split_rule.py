"""Which split a sample of a source is packed into."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from datamodules.sources.source import DataSource, Split
from pretzel.errors import UserError


@dataclass(frozen=True, kw_only=True)
class SplitRule:
    """The splits of a source, or shares of its training samples that are held out.

    A sample is held out by a hash of its key: neither order nor other samples change its split, so
    that data to which samples are added keeps every one where it was.

    Attributes:
        held_out: Share of the training samples that go to a split, by split.
    """

    held_out: Mapping[Split, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for split, share in self.held_out.items():
            if not 0 < share < 1:
                raise UserError(f"{split}_share must be between 0 and 1, got {share}")
        if sum(self.held_out.values()) >= 1:
            raise UserError(f"val_share and test_share must leave training samples, got "
                            f"{' and '.join(map(str, self.held_out.values()))}")  # fmt: skip

    def check(self, source: DataSource) -> None:
        """Refuse to hold out a split that the source has already.

        Raises:
            UserError: Naming the split.
        """
        for split in self.held_out:
            if source.shards(split):
                raise UserError(f"{split}_share: the source has a split {split} already")

    def split_of(self, split: Split, key: str) -> Split:
        """Return the split of a sample of a split of the source."""
        if split != "train" or not self.held_out:
            return split
        digest = hashlib.sha256(key.encode()).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        for other, share in self.held_out.items():
            if place < share:
                return other
            place -= share
        return split
