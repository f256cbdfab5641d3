"""Where the lanes of the training data stand behind the batches that were consumed."""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, final

from datamodules.streams.lanes import LaneState

_KEPT = 4
"""Last batches whose places are kept: more were not yet consumed when a checkpoint is written."""


@final
class Progress:
    """Places of this process's lanes behind the last batches, and how to save them.

    Args:
        start: Number of batches consumed before the order of the data began.
    """

    def __init__(self, start: int = 0) -> None:
        self.start = start
        self._recent: deque[tuple[int, Mapping[int, LaneState]]] = deque(maxlen=_KEPT)

    @property
    def last(self) -> int:
        """Number of batches behind which the last known places are."""
        return self._recent[-1][0] if self._recent else self.start

    def record(self, consumed: int, lanes: Mapping[int, LaneState]) -> None:
        """Note the places behind so many batches."""
        self._recent.append((consumed, lanes))

    def before(self, consumed: int) -> tuple[int, Mapping[int, LaneState]]:
        """Return the last places known that are not behind so many batches, and their number."""
        known = [place for place in self._recent if self.start <= place[0] <= consumed]
        return max(known, key=lambda place: place[0], default=(self.start, {}))

    def state(self, consumed: int) -> dict[str, Any]:
        """Return the place behind so many batches, in plain types."""
        count, lanes = self.before(consumed)
        plain = {
            number: [draws, taken, [list(reader) for reader in readers]]
            for number, (draws, taken, readers) in lanes.items()
        }
        return {"start": self.start, "consumed": count, "lanes": plain}


def restored(state: Mapping[str, Any]) -> Progress:
    """Return the progress of a state, which may be that of all processes together."""
    progress = Progress(state["start"])
    lanes: dict[int, LaneState] = {
        number: (draws, taken, tuple(tuple(reader) for reader in readers))
        for number, (draws, taken, readers) in state["lanes"].items()
    }
    progress.record(state["consumed"], lanes)
    return progress


def merged(states: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the states of all processes as one; without lanes if they differ in their count."""
    first, *others = states
    if any(other["consumed"] != first["consumed"] for other in others):
        return {"start": first["start"], "consumed": first["start"], "lanes": {}}
    lanes = {number: lane for state in (first, *others) for number, lane in state["lanes"].items()}
    return {**first, "lanes": lanes}
