"""The endless, shuffled, reproducible stream of training batches.

An epoch of one process is ``steps`` batches. They come from *slots*, one for each worker of each
process; slot s of S draws, with replacement, from every S-th shard of a permutation that belongs
to the epoch. So processes and workers read different shards, unequal shares even out over epochs,
and everything follows from (seed, epoch, slot): no state but a count of batches is ever saved.

webdataset's own parts do the drawing and the shuffling. ``WebDataset(resampled=True, seed=...)``
would ignore the seed (webdataset 1.0.2), hence ``ResampledShards(deterministic=True)``, which mixes
worker, epoch and seed by ``31 a + b``: it is given one number that already mixes them well.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
import webdataset
from typing_extensions import override

from datamodules.decoding.decoder import SampleDecoder
from datamodules.reading.tar_shard import RawSample
from datamodules.recipes.recipe import Recipe
from datamodules.sample import AnySample, Skipped, Unusable
from datamodules.sources.source import DataSource
from datamodules.streams.delivery import BatchBuilder, Delivery, DeliveryStream
from datamodules.streams.skip_log import listed
from pretzel.errors import UserError
from pretzel.rng import stream

_MOST_IN_A_ROW = 1000


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class TrainStream(DeliveryStream):
    """Batches ``first``, ``first + 1``, ... of one epoch in one process."""

    source: DataSource
    decoder: SampleDecoder
    recipe: Recipe
    seed: int  # of shards, shuffling and recipes
    batch_size: int
    steps: int  # batches of one process in an epoch
    shuffle_buffer: int  # raw samples from which the next one is drawn
    rank: int
    world_size: int
    num_workers: int  # of each process; 0 reads in the process itself
    epoch: int = 0
    first: int = 0

    @property
    def slots(self) -> int:
        """Number of slots whose batches take turns in one process."""
        return max(1, self.num_workers)

    @property
    def order(self) -> dict[str, int]:
        """All that the order of the training data depends on, except the epoch."""
        return {
            "seed": self.seed,
            "batch_size": self.batch_size,
            "steps": self.steps,
            "shuffle_buffer": self.shuffle_buffer,
            "world_size": self.world_size,
            "slots_per_process": self.slots,
            "num_shards": len(self.source.shards("train")),
        }

    def slot_shards(self, slot: int) -> list[str]:
        """Return the shards that one slot of this process reads in the epoch.

        Where there are at least as many shards as slots, no two slots of any process share one.
        """
        shards = self.source.shards("train")
        index = self.rank * self.slots + slot
        generator = stream(self.seed, "shards", self.epoch)
        order = torch.randperm(len(shards), generator=generator).tolist()
        return [shards[i] for i in order[index % len(shards) :: self.world_size * self.slots]]

    @override
    def deliveries(self, turn: int, turns: int) -> Iterator[Delivery]:
        # The loader always asks worker 0 first, so after a resume the slots are rotated.
        number = self.first + turn
        slot = current = number % self.slots
        builder = BatchBuilder(self.batch_size, self.decoder.image_size)
        for delivery in self._batches(builder, slot):
            if current >= number:  # those before it are replayed
                yield delivery
            current += self.slots
            if current >= self.steps:
                return

    def _batches(self, builder: BatchBuilder, slot: int) -> Iterator[Delivery]:
        located = self._usable(builder, slot)
        following = (sample for _, sample in located)
        for position, (shard, sample) in enumerate(located):
            generator = stream(self.seed, "recipe", self.epoch, self.rank, slot, position)
            try:
                documents = self.recipe.draw(sample, following, generator)
            except Unusable as fault:
                builder.skip(fault.skipped(shard, sample.key))
                continue
            for document in documents:
                yield from builder.add(document)

    def _usable(self, builder: BatchBuilder, slot: int) -> Iterator[tuple[str, AnySample]]:
        """Yield samples that the recipe accepts, with their shards."""
        in_a_row = Counter[str]()
        for shard, sample in self._samples(slot):
            builder.seen += 1
            if not isinstance(sample, Skipped):
                try:
                    self.recipe.check(sample)
                except Unusable as fault:
                    sample = fault.skipped(shard, sample.key)
                else:
                    in_a_row.clear()
                    yield shard, sample
                    continue
            builder.skip(sample)
            in_a_row[sample.reason] += 1
            if in_a_row.total() == _MOST_IN_A_ROW:
                raise UserError(
                    f"{_MOST_IN_A_ROW} samples in a row were skipped: {listed(in_a_row)}; the last "
                    f"one: {sample}"
                )

    def _samples(self, slot: int) -> Iterator[tuple[str, AnySample | Skipped]]:
        generator = stream(self.seed, "samples", self.epoch, self.rank, slot)
        order = int(torch.randint(2**31, (), generator=generator))
        shards = webdataset.ResampledShards(
            self.slot_shards(slot), deterministic=True, seed=order, worker_seed=lambda: 0
        )
        shuffled = webdataset.detshuffle(self.shuffle_buffer, self.shuffle_buffer, seed=order)
        for raw in webdataset.DataPipeline(shards, self._read, shuffled):
            sample = self.decoder(raw, self._draw(raw)) if isinstance(raw, RawSample) else raw
            yield raw.shard, sample

    def _draw(self, raw: RawSample) -> torch.Generator | None:
        """Return the random numbers of a sample's crops and flips, if there are any."""
        if not self.decoder.is_random:
            return None
        return stream(self.seed, "picture", self.epoch, raw.key)

    def _read(self, shards: Iterator[dict[str, str]]) -> Iterator[RawSample | Skipped]:
        for shard in shards:
            yield from self.source.read(shard["url"])
