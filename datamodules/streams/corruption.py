"""Counts and names the samples that could not be read."""

import warnings
from collections.abc import Iterable
from typing import final

from datamodules.sample import Skipped
from pretzel.errors import UserError

_NUM_NAMED = 5


@final
class CorruptionLog:
    """Counts every unreadable sample once, however often it is read.

    Args:
        max_corrupt: Number of different unreadable samples that a run accepts.
    """

    def __init__(self, max_corrupt: int) -> None:
        self.max_corrupt = max_corrupt
        self._samples: dict[tuple[str, str], Skipped] = {}

    @property
    def samples(self) -> tuple[Skipped, ...]:
        """The unreadable samples, in the order in which they were first read."""
        return tuple(self._samples.values())

    def record(self, samples: Iterable[Skipped]) -> None:
        """Add samples.

        Raises:
            UserError: If there are now more than ``max_corrupt``.
        """
        for sample in samples:
            self._samples.setdefault((sample.shard, sample.key), sample)
        if len(self._samples) > self.max_corrupt:
            raise UserError(
                f"{len(self._samples)} unreadable samples, more than "
                f"max_corrupt={self.max_corrupt}: {self._names()}"
            )

    def warn(self, rank: int) -> None:
        """Warn about the samples that this process has skipped, if any."""
        if self._samples:
            warnings.warn(
                f"process {rank} skipped {len(self._samples)} unreadable samples: {self._names()}",
                stacklevel=2,
            )

    def _names(self) -> str:
        named = "; ".join(str(sample) for sample in self.samples[:_NUM_NAMED])
        rest = len(self._samples) - _NUM_NAMED
        return f"{named}; and {rest} more" if rest > 0 else named
