"""Raw samples of one part of the data in the order of one lane, shuffled in blocks."""

from collections.abc import Iterator
from typing import NamedTuple, final

import torch

from datamodules.reading.tar_shard import RawSample
from datamodules.sample import Skipped
from datamodules.sources.source import Part
from datamodules.streams.order import Order
from pretzel.errors import UserError


class ReaderState(NamedTuple):
    """Place of a reader: where its current block begins, and how far it has come in it.

    Attributes:
        number: Number of the pass over the data.
        turn: Round of the pass.
        before: Samples of the share of that round before the block.
        block: Number of the block.
        used: Samples of the block that were used.
    """

    number: int = 0
    turn: int = 0
    before: int = 0
    block: int = 0
    used: int = 0


@final
class ShuffledReader:
    """Raw samples of one part of the data for one lane: shuffled in blocks, without end.

    Args:
        part: The part.
        order: The order of the data.
        lane: Number of the lane.
        state: :attr:`state` of the reader that is continued.
    """

    def __init__(self, part: Part, order: Order, lane: int, state: ReaderState) -> None:
        self._part = part
        self._order = order
        self._lane = lane
        self._shards = part.source.shards("train")
        # Where the block begins: number of the pass, of the round, samples of the share before it.
        self._begin = self._head = (state.number, state.turn, state.before)
        self._block, self._used = state.block, state.used
        self._rest: list[tuple[int, RawSample | Skipped]] = []  # of the block, the next one last
        self._share: Iterator[RawSample | Skipped] | None = None

    @property
    def state(self) -> ReaderState:
        """Place behind the last sample."""
        return ReaderState(*self._begin, block=self._block, used=self._used)

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
