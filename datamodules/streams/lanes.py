"""Lanes: endless sequences of training documents, each a function of its place in the order."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import final

import torch

from datamodules.decoding.decoder import SampleDecoder
from datamodules.reading.tar_shard import RawSample
from datamodules.recipes.illustrated import Illustrated
from datamodules.recipes.recipe import Recipe
from datamodules.sample import AnySample, Skipped, Unusable
from datamodules.sources.source import Part
from datamodules.streams.order import Order
from pretzel.errors import UserError

LaneState = tuple[int, int, tuple[tuple[int, ...], ...]]
"""Number of the next draw, documents of it that were taken, and the state of each part's reader."""

_PATIENCE = 200
"""Samples in a row that cannot be used after which a lane says so."""


@final
class ShuffledReader:
    """Raw samples of one part of the data for one lane: shuffled in blocks, without end.

    Args:
        part: The part.
        order: The order of the data.
        lane: Number of the lane.
        state: :attr:`state` of the reader that is continued.
    """

    def __init__(
        self, part: Part, order: Order, lane: int, state: Sequence[int] = (0, 0, 0, 0, 0)
    ) -> None:
        self._part = part
        self._order = order
        self._lane = lane
        self._shards = part.source.shards("train")
        # Where the block begins: number of the pass, of the round, samples of the share before it.
        self._begin = self._head = (state[0], state[1], state[2])
        self._block, self._used = state[3], state[4]
        self._rest: list[tuple[int, RawSample | Skipped]] = []  # of the block, the next one last
        self._share: Iterator[RawSample | Skipped] | None = None

    @property
    def state(self) -> tuple[int, ...]:
        """Begin of the current block (pass, round, samples before it), its number, samples used."""
        return (*self._begin, self._block, self._used)

    def __iter__(self) -> Iterator[tuple[int, RawSample | Skipped]]:
        """Yield the samples, each with the number of the pass in which it is read.

        Raises:
            UserError: If there are none.
        """
        while True:
            if not self._rest:
                self._rest = self._read_block()
            item = self._rest.pop()
            self._used += 1
            if not self._rest:
                self._begin, self._block, self._used = self._head, self._block + 1, 0
            yield item

    def _read_block(self) -> list[tuple[int, RawSample | Skipped]]:
        size = self._order.block_size(self._lane, self._block)
        items = [self._read() for _ in range(size)]
        generator = self._order.generator("block", self._part.name, self._lane, self._block)
        shuffled = torch.randperm(size, generator=generator).tolist()
        return [items[index] for index in shuffled[: size - self._used]]

    def _read(self) -> tuple[int, RawSample | Skipped]:
        first_pass = self._head[0]
        while True:
            number, turn, taken = self._head
            if self._share is None:
                share = self._order.share(
                    self._part.name, len(self._shards), lane=self._lane, number=number, turn=turn
                )
                if share is None:
                    if number - first_pass > self._order.num_lanes:  # all shares have been tried
                        raise UserError(f"the training shards of {self._part.name} hold no sample")
                    self._head = (number + 1, 0, 0)
                    continue
                index, first, step = share
                source, shard = self._part.source, self._shards[index]
                self._share = iter(source.read(shard, first + taken * step, step))
            sample = next(self._share, None)
            if sample is not None:
                self._head = (number, turn, taken + 1)
                return number, sample
            self._share = None
            self._head = (number, turn + 1, 0)


@final
class Lane:
    """Documents of one lane, without end.

    Args:
        parts: Parts of the data.
        decoders: The decoder of each.
        order: The order of the data.
        number: Number of the lane.
        state: :attr:`state` of the lane that is continued.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        decoders: Sequence[SampleDecoder],
        order: Order,
        number: int,
        state: LaneState | None = None,
    ) -> None:
        self._parts = parts
        self._order = order
        self._number = number
        self._draws, taken, readers = state or (0, 0, ((0, 0, 0, 0, 0),) * len(parts))
        self._readers = [
            ShuffledReader(part, order, number, reader)
            for part, reader in zip(parts, readers, strict=True)
        ]
        self._samples = [
            self._usable(reader, decoder, part.recipe)
            for reader, decoder, part in zip(self._readers, decoders, parts, strict=True)
        ]
        self._shard = ""  # of the last sample
        self._documents: deque[tuple[str, Illustrated]] = deque()
        self._before = self._next_draw
        self._taken = 0
        self.skipped: list[Skipped] = []
        self.seen = 0
        if taken:
            self._draw()
            for _ in range(taken):
                self.take()
            self.skipped, self.seen = [], 0  # they have been told before

    @property
    def state(self) -> LaneState:
        """Place in the lane behind the last document."""
        if not self._documents:
            return self._next_draw
        draws, _, readers = self._before
        return draws, self._taken, readers

    def take(self) -> tuple[str, Illustrated] | None:
        """Return the next document and the name of its part; None if none has been found yet.

        Raises:
            UserError: If there are no samples, or something is wrong with all of them.
        """
        if not self._documents:
            self._draw()
        if not self._documents:
            return None
        self._taken += 1
        return self._documents.popleft()

    @property
    def _next_draw(self) -> LaneState:
        return self._draws, 0, tuple(reader.state for reader in self._readers)

    def _draw(self) -> None:
        self._before, self._taken = self._next_draw, 0
        number, self._draws = self._draws, self._draws + 1
        index = self._choose(number)
        part, samples = self._parts[index], self._samples[index]
        sample = next(samples)
        if sample is None:
            return
        shard = self._shard
        generator = self._order.generator("recipe", self._number, number)
        try:
            documents = part.recipe.draw(sample, _without_gaps(samples), generator)
        except Unusable as fault:
            self.skipped.append(fault.skipped(shard, sample.key))
        else:
            self._documents.extend((part.name, document) for document in documents)

    def _choose(self, number: int) -> int:
        """Return the part to which a draw belongs."""
        if len(self._parts) == 1:
            return 0
        weights = torch.tensor([part.weight for part in self._parts], dtype=torch.float64)
        generator = self._order.generator("blend", self._number, number)
        point = torch.rand((), generator=generator, dtype=torch.float64) * weights.sum()
        # At the end of the last interval by rounding, the point counts as inside of it.
        return min(int((weights.cumsum(0) <= point).sum()), len(weights) - 1)

    def _usable(
        self, reader: ShuffledReader, decoder: SampleDecoder, recipe: Recipe
    ) -> Iterator[AnySample | None]:
        """Yield what a recipe accepts, and None where many in a row cannot be used."""
        in_a_row = 0
        for number, raw in reader:
            self.seen += 1
            sample = self._accepted(raw, number, decoder, recipe)
            if not isinstance(sample, Skipped):
                in_a_row = 0
                self._shard = raw.shard
                yield sample
                continue
            self.skipped.append(sample)
            in_a_row += 1
            if in_a_row % _PATIENCE == 0:
                yield None

    def _accepted(
        self, raw: RawSample | Skipped, number: int, decoder: SampleDecoder, recipe: Recipe
    ) -> AnySample | Skipped:
        if isinstance(raw, Skipped):
            return raw
        draw = self._order.generator("picture", number, raw.key) if decoder.is_random else None
        sample = decoder(raw, draw)
        if isinstance(sample, Skipped):
            return sample
        try:
            recipe.check(sample)
        except Unusable as fault:
            return fault.skipped(raw.shard, raw.key)
        return sample


def _without_gaps(samples: Iterator[AnySample | None]) -> Iterator[AnySample]:
    for sample in samples:
        if sample is None:
            raise Unusable("damaged", f"none of the {_PATIENCE} samples behind it can be used")
        yield sample
