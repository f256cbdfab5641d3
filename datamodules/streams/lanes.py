"""Lanes: endless sequences of training documents, each a function of its place in the order."""

from collections.abc import Sequence
from typing import Any, NamedTuple, final

from datamodules.decoding.decoder import SampleDecoder
from datamodules.recipes.illustrated import Illustrated
from datamodules.sources.source import Part
from datamodules.streams.order import Order
from datamodules.streams.part_documents import PartDocuments, PartState, Tally
from datamodules.streams.shuffled_reader import ReaderState
from datamodules.weighted_choice import weighted_choice


class LaneState(NamedTuple):
    """Place in a lane.

    Attributes:
        documents: Documents taken.
        draws: Draws made, in all parts of the data together.
        parts: Place in the documents of each part.
    """

    documents: int
    draws: int
    parts: tuple[PartState, ...]

    def plain(self) -> list[Any]:
        """Return the place in lists of numbers, for a checkpoint."""
        parts = [[part.draw, part.taken, list(part.reader)] for part in self.parts]
        return [self.documents, self.draws, parts]

    @classmethod
    def of(cls, plain: Sequence[Any]) -> "LaneState":
        """Return the place that :meth:`plain` gave."""
        documents, draws, parts = plain
        states = (PartState(draw, taken, ReaderState(*reader)) for draw, taken, reader in parts)
        return cls(documents, draws, tuple(states))


@final
class Lane:
    """Documents of one lane, without end.

    The part of the data that a document comes from is drawn anew for each, by weight, whatever
    its recipe makes of one sample, and however many samples of it cannot be used.

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
        state = state or LaneState(0, 0, (PartState(),) * len(parts))
        self._parts = parts
        self._order = order
        self._number = number
        self._num_documents, self._num_draws = state.documents, state.draws
        self._documents = [
            PartDocuments(part, decoder, order, number, place)
            for part, decoder, place in zip(parts, decoders, state.parts, strict=True)
        ]

    @property
    def state(self) -> LaneState:
        """Place in the lane behind the last document."""
        states = tuple(documents.state for documents in self._documents)
        return LaneState(self._num_documents, self._num_draws, states)

    @property
    def num_unreported(self) -> int:
        """Number of samples that were skipped since the last :meth:`report`."""
        return sum(len(documents.tally.skipped) for documents in self._documents)

    def report(self) -> Tally:
        """Return the samples that were looked at since the last report."""
        report = Tally()
        for documents in self._documents:
            report.seen += documents.tally.seen
            report.skipped += documents.tally.skipped
            documents.tally = Tally()
        return report

    def take(self) -> tuple[str, Illustrated] | None:
        """Return the next document and the name of its part; None if none has been found yet.

        Raises:
            UserError: If the part has no samples.
        """
        index = self._choose()
        documents = self._documents[index]
        if documents.is_empty:
            number, self._num_draws = self._num_draws, self._num_draws + 1
            documents.draw(number)
        if documents.is_empty:
            return None
        self._num_documents += 1
        return self._parts[index].name, documents.take()

    def _choose(self) -> int:
        """Return the part that the next document comes from."""
        if len(self._parts) == 1:
            return 0
        generator = self._order.generator("blend", self._number, self._num_documents)
        return weighted_choice([part.weight for part in self._parts], generator)
