"""The endless, shuffled, reproducible stream of training batches.

An epoch of one process is ``steps`` batches. They come from *slots*, one for each worker of each
process; slot s of S draws, with replacement, from every S-th shard of a permutation that belongs
to the epoch. So processes and workers read different shards, unequal shares even out over epochs,
and everything follows from (seed, epoch, slot): no state but a count of batches is ever saved.

webdataset's own parts do the drawing and the shuffling. ``WebDataset(resampled=True, seed=...)``
would ignore the seed (webdataset 1.0.2), hence ``ResampledShards(deterministic=True)``, which mixes
worker, epoch and seed by ``31 a + b``: it is given one number that already mixes them well.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import final

import torch
import webdataset
from torch.utils.data import get_worker_info

from datamodules.decoder import SampleDecoder
from datamodules.delivery import BatchBuilder, Delivery, with_errors_as_text
from datamodules.recipe import Recipe
from datamodules.sample import AnySample, CorruptSample
from datamodules.shard_reader import RawSample
from datamodules.source import ShardSource
from pretzel.errors import UserError
from pretzel.rng import stream


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """All that the order of the training data depends on, except the epoch.

    Attributes:
        seed: Seed of shards, shuffling and recipes.
        batch_size: Documents in a batch.
        steps: Batches of one process in an epoch.
        shuffle_buffer: Raw samples from which the next one is drawn.
        max_corrupt: Unreadable samples in a row after which a slot gives up.
        rank: Number of this process.
        world_size: Number of processes.
        num_workers: Worker processes of each process; 0 reads in the process itself.
    """

    seed: int
    batch_size: int
    steps: int
    shuffle_buffer: int
    max_corrupt: int
    rank: int
    world_size: int
    num_workers: int

    @property
    def slots_per_process(self) -> int:
        """Number of slots whose batches take turns in one process."""
        return max(1, self.num_workers)


def slot_shards(shards: tuple[str, ...], plan: TrainPlan, epoch: int, slot: int) -> list[str]:
    """Return the shards that one slot of this process reads in an epoch.

    Where there are at least as many shards as slots, no two slots of any process share one.

    Args:
        shards: All training shards.
        plan: The plan of this process.
        epoch: Number of the epoch.
        slot: Slot within this process.
    """
    num_slots = plan.world_size * plan.slots_per_process
    index = plan.rank * plan.slots_per_process + slot
    order = torch.randperm(len(shards), generator=stream(plan.seed, "shards", epoch)).tolist()
    return [shards[i] for i in order[index % len(shards) :: num_slots]]


@final
@dataclass(frozen=True, eq=False)
class TrainStream:
    """Batches ``first``, ``first + 1``, ... of one epoch in one process.

    Attributes:
        source: Where the samples come from.
        decoder: Decodes them.
        recipe: Turns them into documents.
        plan: Seed, sizes and place of this process.
        epoch: Number of the epoch.
        first: Batches of the epoch that are already consumed.
    """

    source: ShardSource
    decoder: SampleDecoder
    recipe: Recipe
    plan: TrainPlan
    epoch: int = field(kw_only=True)
    first: int = field(kw_only=True)

    def __iter__(self) -> Iterator[Delivery]:
        # The loader always asks worker 0 first, so after a resume the slots are rotated.
        worker = get_worker_info()
        turn = worker.id if worker is not None else 0
        return with_errors_as_text(self._batches(self.first + turn))

    def _batches(self, number: int) -> Iterator[Delivery]:
        """Yield batch ``number`` and every further one of its slot; replay those before it."""
        slots = self.plan.slots_per_process
        slot, end = number % slots, self.plan.steps
        builder = BatchBuilder(self.plan.batch_size, self.decoder.image_size)
        current = slot
        for delivery in self._deliveries(builder, slot):
            if current >= number:
                yield delivery
            current += slots
            if current >= end:
                return

    def _deliveries(self, builder: BatchBuilder, slot: int) -> Iterator[Delivery]:
        samples = self._readable(builder, slot)
        for position, sample in enumerate(samples):
            generator = stream(self.plan.seed, "recipe", self.epoch, self.plan.rank, slot, position)
            for document in self.recipe.draw(sample, samples, generator):
                yield from builder.add(document)

    def _readable(self, builder: BatchBuilder, slot: int) -> Iterator[AnySample]:
        in_a_row = 0
        for sample in self._samples(slot):
            if isinstance(sample, CorruptSample):
                builder.skip(sample)
                in_a_row += 1
                if in_a_row > self.plan.max_corrupt:
                    raise UserError(
                        f"{in_a_row} unreadable samples in a row, more than "
                        f"max_corrupt={self.plan.max_corrupt}; the last one: {sample}"
                    )
                continue
            in_a_row = 0
            yield sample

    def _samples(self, slot: int) -> Iterator[AnySample | CorruptSample]:
        plan = self.plan
        shards = slot_shards(self.source.shards("train"), plan, self.epoch, slot)
        key = (plan.seed, "samples", self.epoch, plan.rank, slot)
        order = int(torch.randint(2**31, (), generator=stream(*key)))
        pipeline = webdataset.DataPipeline(
            webdataset.ResampledShards(
                shards, deterministic=True, seed=order, worker_seed=_no_worker_seed
            ),
            self._read,
            webdataset.detshuffle(plan.shuffle_buffer, plan.shuffle_buffer, seed=order),
        )
        for raw in pipeline:
            yield self.decoder(raw) if isinstance(raw, RawSample) else raw

    def _read(self, shards: Iterator[dict[str, str]]) -> Iterator[RawSample | CorruptSample]:
        for shard in shards:
            yield from self.source.read(shard["url"])


def _no_worker_seed() -> int:
    return 0
