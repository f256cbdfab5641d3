"""The order of the training data, as a function of a few numbers alone.

A batch of all processes together is cut into *lanes*, at most 64, each a run of its rows. A lane is
an endless sequence of documents of its own; processes and workers only divide the lanes among
themselves, so that how many there are changes nothing.

Each lane passes over the data again and again. A pass permutes the shards anew and deals them out
in rounds, one to each lane; the shards of the last round, where there are fewer than lanes, are
shared: several lanes read every so-manyth sample of one. So the lanes together read each sample
once in a pass. Lanes shuffle in blocks of consecutive samples; the first ones are small, so that
the first batch comes soon.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

import torch

from datamodules.sources.source import Part
from pretzel.rng import stream

VERSION = 2
"""Version of the rules here and of lanes: after a checkpoint of another a new order begins."""
MOST_LANES = 64
_FIRST_BLOCK = 4
"""Samples of a lane's first block; the next ones have twice as many until they are full."""


@final
@dataclass(frozen=True, kw_only=True)
class Order:
    """Deals rows of a batch, shards and blocks out to lanes.

    Attributes:
        seed: Seed of all random choices of the data.
        batch_size: Documents in a batch of all processes together.
        shuffle_buffer: Samples in the blocks of all lanes together.
        start: Number of batches that were consumed, in another order, when this one began.
    """

    seed: int
    batch_size: int
    shuffle_buffer: int
    start: int = 0

    @property
    def num_lanes(self) -> int:
        """Number of lanes."""
        return min(self.batch_size, MOST_LANES)

    def settings(self, parts: Iterable[Part]) -> dict[str, int | float]:
        """Return by name all that the order of parts of the data depends on, but the start."""
        settings: dict[str, int | float] = {
            "version": VERSION,
            "seed": self.seed,
            "global_batch_size": self.batch_size,
            "shuffle_buffer": self.shuffle_buffer,
        }
        for part in parts:
            settings[f"shards of {part.name}"] = len(part.source.shards("train"))
            settings[f"weight of {part.name}"] = part.weight
        return settings

    def rows(self, lane: int) -> range:
        """Return the rows of a batch that belong to a lane: row i to lane i L // G."""
        lanes, size = self.num_lanes, self.batch_size
        return range(-(-lane * size // lanes), -(-(lane + 1) * size // lanes))

    def lanes(self, rows: range) -> range:
        """Return the lanes to which consecutive rows belong."""
        lanes, size = self.num_lanes, self.batch_size
        return range(rows[0] * lanes // size, rows[-1] * lanes // size + 1)

    def share(
        self, name: str, num_shards: int, *, lane: int, number: int, turn: int
    ) -> tuple[int, int, int] | None:
        """Return what a lane reads in one round of a pass, None behind the last round.

        Args:
            name: Name of the part of the data.
            num_shards: Number of its shards.
            lane: The lane.
            number: Number of the pass.
            turn: Number of the round.

        Returns:
            Index of the shard, the first sample of it, and the step to the next ones.
        """
        lanes = self.num_lanes
        generator = self.generator("shards", name, number)
        shards = torch.randperm(num_shards, generator=generator)[turn * lanes : (turn + 1) * lanes]
        if not len(shards):
            return None
        # Another share in each pass: the shares of a shard are not equally long.
        place = (lane + number) % lanes
        shard, first = place % len(shards), place // len(shards)
        return int(shards[shard]), first, -(-(lanes - shard) // len(shards))

    def block_size(self, lane: int, number: int) -> int:
        """Return the number of samples in a block of a lane."""
        full = max(1, self.shuffle_buffer // self.num_lanes)
        size = _FIRST_BLOCK << min(number, 60)
        if size < full:
            return size
        # The first full block is cut, for each lane elsewhere: they shall not all read at once.
        is_first = number == 0 or size // 2 < full
        return full - lane * full // self.num_lanes if is_first else full

    def generator(self, purpose: str, *key: int | str) -> torch.Generator:
        """Return the random numbers of one purpose at one place of the order."""
        return stream(self.seed, purpose, self.start, *key)
