"""Documents of one part of the data in the order of one lane."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, final

from datamodules.decoding.decoder import SampleDecoder
from datamodules.reading.tar_shard import RawSample
from datamodules.recipes.illustrated import Illustrated
from datamodules.sample import AnySample, Skipped, Unusable
from datamodules.sources.source import Part
from datamodules.streams.order import Order
from datamodules.streams.shuffled_reader import ReaderState, ShuffledReader

_PATIENCE = 200
"""Samples in a row that cannot be used after which a draw ends without documents."""


class PartState(NamedTuple):
    """Place in the documents of a part.

    Attributes:
        draw: Number of the draw whose documents are not all taken.
        taken: Documents of it that are; 0 where no draw is left over.
        reader: Place of the reader before that draw.
    """

    draw: int = 0
    taken: int = 0
    reader: ReaderState = ReaderState()


@dataclass
class Tally:
    """Samples that were looked at since the last report.

    Attributes:
        seen: Number of them, usable or not.
        skipped: Those that cannot serve.
    """

    seen: int = 0
    skipped: list[Skipped] = field(default_factory=list)


@final
class PartDocuments:
    """Documents that a recipe makes of one part of the data for one lane, without end.

    Args:
        part: The part.
        decoder: Decodes its samples.
        order: The order of the data.
        lane: Number of the lane.
        state: :attr:`state` of the documents that are continued.

    Attributes:
        tally: Samples that were looked at; whoever reads it puts a new one in its place.
    """

    def __init__(
        self, part: Part, decoder: SampleDecoder, order: Order, lane: int, state: PartState
    ) -> None:
        self.tally = Tally()
        self._part = part
        self._decoder = decoder
        self._order = order
        self._lane = lane
        self._reader = ShuffledReader(part, order, lane, state.reader)
        self._samples = self._usable()
        self._shard = ""  # of the last sample
        self._documents: deque[Illustrated] = deque()
        self._draw = state
        if state.taken:
            self.draw(state.draw)
            for _ in range(state.taken):
                self.take()
            self.tally = Tally()  # reported before

    @property
    def state(self) -> PartState:
        """Place behind the last document."""
        return self._draw if self._documents else PartState(reader=self._reader.state)

    @property
    def is_empty(self) -> bool:
        """Whether a draw must come before the next document."""
        return not self._documents

    def take(self) -> Illustrated:
        """Return the next document of those that were drawn."""
        self._draw = self._draw._replace(taken=self._draw.taken + 1)
        return self._documents.popleft()

    def draw(self, number: int) -> None:
        """Make the documents of the next sample, perhaps none.

        Args:
            number: Number of the draw in the lane, to which the random numbers belong.

        Raises:
            UserError: If there are no samples.
        """
        self._draw = PartState(draw=number, reader=self._reader.state)
        sample = next(self._samples)
        if sample is None:
            return
        shard = self._shard
        generator = self._order.generator("recipe", self._lane, number)
        try:
            self._documents.extend(self._part.recipe.draw(sample, self._following(), generator))
        except Unusable as fault:
            self.tally.skipped.append(fault.skipped(shard, sample.key))

    def _following(self) -> Iterator[AnySample]:
        for sample in self._samples:
            if sample is None:
                detail = f"none of the {_PATIENCE} samples behind it can be used"
                raise Unusable("damaged", detail)
            yield sample

    def _usable(self) -> Iterator[AnySample | None]:
        """Yield what the recipe accepts, and None where many in a row cannot be used."""
        in_a_row = 0
        for number, raw in self._reader:
            self.tally.seen += 1
            sample = self._accepted(raw, number)
            if not isinstance(sample, Skipped):
                in_a_row = 0
                self._shard = raw.shard
                yield sample
                continue
            self.tally.skipped.append(sample)
            in_a_row += 1
            if in_a_row % _PATIENCE == 0:
                yield None

    def _accepted(self, raw: RawSample | Skipped, number: int) -> AnySample | Skipped:
        if isinstance(raw, Skipped):
            return raw
        is_random = self._decoder.is_random
        draw = self._order.generator("picture", number, raw.key) if is_random else None
        sample = self._decoder(raw, draw)
        if isinstance(sample, Skipped):
            return sample
        try:
            self._part.recipe.check(sample)
        except Unusable as fault:
            return fault.skipped(raw.shard, raw.key)
        return sample
