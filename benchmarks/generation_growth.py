"""Time of a step as the sequence grows, and the share of attention in it.

A conversation is held once and forked behind so many images. Then all forks go on in turn, a few
steps each, so that what disturbs the machine disturbs them alike; ratios are of steps that ran
within a moment of each other.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F

from benchmarks.generation_script import CAPTION, QUESTION, Script, Trace, Unending, hold, noise
from pretzel.generation.deep_inversion import DeepInversion
from pretzel.generation.state import GenerationState
from pretzel.generation.writing import write_tokens
from pretzel.model import Pretzel
from pretzel.typing import Tensor

TURN = 8
"""Steps of a fork before it is another's turn; the first of them find the processor's caches full
of what the others have left."""

Lap = tuple[float, float]
"""CPU seconds, and those of them within attention."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """Time of a step at one length, in one round.

    Attributes:
        seconds: CPU seconds, the median.
        attention: CPU seconds within attention.
        to_first: Ratio to the step at the first length.
        rest_to_first: The same ratio without attention.
    """

    seconds: float
    attention: float
    to_first: float
    rest_to_first: float


@dataclass(frozen=True, kw_only=True)
class Place:
    """A place in the sequence at which steps were timed.

    Attributes:
        kind: ``token`` or ``position``, whichever is generated in steps.
        images: Images before it.
        length: Positions before the first step.
        count: Steps.
        rounds: Time of a step in each round.
    """

    kind: str
    images: int
    length: int
    count: int
    rounds: Sequence[Step]


class Clock:
    """CPU time of this process, and how much of it went into attention."""

    def __init__(self) -> None:
        self.attention = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time attention, that of transformers as well."""
        attend = F.scaled_dot_product_attention

        def timed(*args: Any, **options: Any) -> Tensor:  # noqa: ANN401
            begin = time.process_time()
            out: Tensor = attend(*args, **options)
            self.attention += time.process_time() - begin
            return out

        with mock.patch.object(F, "scaled_dot_product_attention", timed):
            yield

    def lap(self, run: Callable[[], object]) -> Lap:
        """Return what a call takes."""
        before, begin = self.attention, time.process_time()
        run()
        return time.process_time() - begin, self.attention - before


def grown(model: Pretzel, script: Script, images: Sequence[int], rounds: int) -> list[Place]:
    """Return the times of tokens and of image positions, behind some numbers of images.

    Args:
        model: The model.
        script: Its conversation, in which that many images are followed by another turn.
        images: Numbers of images, ascending.
        rounds: Rounds that count; one more warms up.
    """
    clock, places = Clock(), []
    kinds: Mapping[str, Callable[[GenerationState, Script], Iterator[object]]] = {
        "token": _tokens, "position": _positions,
    }  # fmt: skip
    with torch.inference_mode(), clock.running():
        forks = _forks(model, script, images)
        for kind, steps in kinds.items():
            results: list[list[Step]] = []
            for _ in range(rounds + 1):
                states = [_fork(fork) for fork in forks]
                runs = [steps(state, script) for state in states]
                for run in runs:
                    next(run)
                lengths = [state.length for state in states]
                count = (script.tokens if kind == "token" else model.latent.num_positions) - 1
                results.append(_steps(_laps(runs, count, clock)))
            for place, (number, length) in enumerate(zip(images, lengths, strict=True)):
                timings = [steps_of_round[place] for steps_of_round in results[1:]]
                places.append(
                    Place(kind=kind, images=number, length=length, count=count, rounds=timings)
                )
    return places


def _forks(model: Pretzel, script: Script, images: Sequence[int]) -> list[GenerationState]:
    state, trace = GenerationState(model, 1, script.room(model)), Trace()
    forks = []
    for turn in range(max(images) + 1):
        if turn in images:
            forks.append(_fork(state))
        if turn < max(images):
            hold(state, script, turn, trace)
    return forks


def _fork(state: GenerationState) -> GenerationState:
    return state.select(torch.tensor([0]))


def _tokens(state: GenerationState, script: Script) -> Iterator[object]:
    state.read_text([QUESTION])
    writing = Unending(end=state.model.vlm.special.end_of_text)
    yield from write_tokens(state, script.tokens, writing)


def _positions(state: GenerationState, script: Script) -> Iterator[object]:
    state.read_text([CAPTION])
    state.begin_image(script.guidance)
    z = noise(state.model, 0)
    inversion = DeepInversion(state, z, script.guidance)
    for index in range(inversion.num_positions):
        inversion.step(index)
        yield index


def _laps(runs: Sequence[Iterator[object]], count: int, clock: Clock) -> list[list[list[Lap]]]:
    """Return laps by moments, in which every run has its turn, and by runs."""
    moments = []
    for number, start in enumerate(range(0, count, TURN)):
        moment: list[list[Lap]] = [[] for _ in runs]
        order = range(len(runs)) if number % 2 else reversed(range(len(runs)))
        for place in order:
            steps = range(start, min(start + TURN, count))
            moment[place] = [clock.lap(lambda run=runs[place]: next(run)) for _ in steps]  # type: ignore[misc]
        moments.append(moment)
    return moments


def _steps(moments: Sequence[Sequence[Sequence[Lap]]]) -> list[Step]:
    """Return the time of a step at each place, from one round."""
    results = []
    medians = [[_median(laps) for laps in moment] for moment in moments]
    for place in range(len(moments[0])):
        seconds, attention = _median([lap for moment in moments for lap in moment[place]])
        later = [moment[place] for moment in medians]
        first = [moment[0] for moment in medians]
        pairs = list(zip(later, first, strict=True))
        results.append(
            Step(
                seconds=seconds,
                attention=attention,
                to_first=statistics.median(a[0] / b[0] for a, b in pairs),
                rest_to_first=statistics.median((a[0] - a[1]) / (b[0] - b[1]) for a, b in pairs),
            )
        )
    return results


def _median(laps: Sequence[Lap]) -> Lap:
    seconds, attention = zip(*laps, strict=True)
    return statistics.median(seconds), statistics.median(attention)
