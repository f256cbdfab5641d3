"""Where the lanes of the training data stand behind the batches that were consumed."""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any, final

from lightning.pytorch.utilities import rank_zero_warn

from datamodules.streams.lanes import LaneState

_KEPT = 4
"""Last batches whose places are kept: more were not yet consumed when a checkpoint is written."""


@final
class Progress:
    """Places of this process's lanes behind the last batches, and how to save them.

    Args:
        start: Number of batches consumed before the order of the data began.
        documents: Documents of each part that all processes had consumed when this one began.
    """

    def __init__(self, start: int = 0, documents: Mapping[str, int] | None = None) -> None:
        self.start = start
        self.documents = Counter(documents or {})
        self.own: Counter[str] = Counter()
        """Documents of each part that this process has consumed since then."""
        self._recent: deque[tuple[int, Mapping[int, LaneState], Mapping[str, int]]] = deque(
            maxlen=_KEPT
        )

    @property
    def last(self) -> int:
        """Number of batches behind which the last known places are."""
        return self._recent[-1][0] if self._recent else self.start

    def record(
        self, consumed: int, lanes: Mapping[int, LaneState], counts: Mapping[str, int]
    ) -> None:
        """Note the places behind so many batches, and the documents of each part in the last."""
        self.own += Counter(counts)
        self._recent.append((consumed, lanes, dict(self.own)))

    def before(self, consumed: int) -> tuple[int, Mapping[int, LaneState]]:
        """Return the last places known that are not behind so many batches, and their number."""
        count, lanes, _ = self._before(consumed)
        return count, lanes

    def state(self, consumed: int) -> dict[str, Any]:
        """Return the place behind so many batches, in plain types."""
        count, lanes, own = self._before(consumed)
        return {
            "start": self.start,
            "consumed": count,
            "lanes": {number: lane.plain() for number, lane in lanes.items()},
            "documents": dict(self.documents),
            "own": dict(own),
        }

    def _before(self, consumed: int) -> tuple[int, Mapping[int, LaneState], Mapping[str, int]]:
        known = [place for place in self._recent if self.start <= place[0] <= consumed]
        return max(known, key=lambda place: place[0], default=(self.start, {}, {}))


def continued(state: Mapping[str, Any] | None, order: Mapping[str, int | float]) -> Progress:
    """Return the progress of a checkpoint, or of a new order behind it where the order differs.

    Args:
        state: What :func:`merged` returned, with the settings of its ``order``; None to begin.
        order: The settings of the order now.
    """
    if state is None:
        return Progress()
    before = state["order"]
    changed = [
        f"{name} {before.get(name)} -> {order.get(name)}"
        for name in {**before, **order}
        if before.get(name) != order.get(name)
    ]
    if not changed:
        return restored(state)
    rank_zero_warn(
        f"the checkpoint was made with another order of the data ({', '.join(changed)}): "
        "training continues, but not with the batches an uninterrupted run would have seen"
    )
    return Progress(state["consumed"], state["documents"])


def restored(state: Mapping[str, Any]) -> Progress:
    """Return the progress of a state, which may be that of all processes together."""
    progress = Progress(state["start"], state["documents"])
    lanes = {number: LaneState.of(plain) for number, plain in state["lanes"].items()}
    progress.record(state["consumed"], lanes, {})
    return progress


def merged(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the states of all processes as one; without lanes if they differ in their count."""
    first, *others = states
    documents = sum((Counter(state["own"]) for state in states), Counter(first["documents"]))
    whole = {"start": first["start"], "documents": dict(documents)}
    if any(other["consumed"] != first["consumed"] for other in others):
        return {**whole, "consumed": first["start"], "lanes": {}}
    lanes = {number: lane for state in states for number, lane in state["lanes"].items()}
    return {**whole, "consumed": first["consumed"], "lanes": lanes}
