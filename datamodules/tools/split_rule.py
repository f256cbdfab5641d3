"""Which split a sample of a source is packed into."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from datamodules.sources.held_out import check_shares, split_of
from datamodules.sources.source import DataSource, Split
from pretzel.errors import UserError


@dataclass(frozen=True, kw_only=True)
class SplitRule:
    """The splits of a source, or shares of its training samples that are held out.

    A sample is held out by a hash of its key (:mod:`datamodules.sources.held_out`).

    Attributes:
        held_out: Share of the training samples that go to a split, by split.
    """

    held_out: Mapping[Split, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_shares({f"{split}_share": share for split, share in self.held_out.items()})

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
        return split_of(key, self.held_out) if split == "train" else split
