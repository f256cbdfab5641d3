"""Arms of a task run in turn in one process, and ratios of their times within a round.

The machine may be shared and its speed may change from minute to minute: what arms take is
compared round by round, and the spread over rounds is told with the median.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from benchmarks.floor import Floor
from pretzel.typing import Tensor


@dataclass(frozen=True, kw_only=True)
class Task:
    """Something that several arms do.

    Attributes:
        name: What is done.
        arms: Every arm's name and function; the first is the one compared to the others.
        goals: Greatest ratio of the first arm's time to another's that is aimed at.
        floor: What the first arm must compute and read.
        equal: Largest difference from the first arm's result, in absolute terms and relative to
            it, for each arm that computes the same.
        turns: How many rounds are run in place of one: more where little time is asked about.
    """

    name: str
    arms: Mapping[str, Callable[[], Tensor]]
    goals: Mapping[str, float] = field(default_factory=dict)
    floor: Floor | None = None
    equal: Mapping[str, float] = field(default_factory=dict)
    turns: int = 1


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Ratio of two times.

    Attributes:
        median: Median over the rounds.
        low: Smallest.
        high: Largest.
    """

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Result of two arms of a task.

    Attributes:
        task: Name of the task.
        arm: The arm that is compared.
        other: The arm it is compared to.
        seconds: Median CPU seconds of ``arm``.
        other_seconds: Median CPU seconds of ``other``.
        cpu: CPU time of ``arm`` over that of ``other``.
        wall: The same ratio of the time on the clock.
        goal: Greatest ratio that is aimed at; None for no goal.
        floor: Least seconds ``arm`` could take on this machine; None if not known.
        mib: Peak memory that ``arm`` adds to its process, MiB; None if not measured.
        other_mib: Peak memory that ``other`` adds.
    """

    task: str
    arm: str
    other: str
    seconds: float
    other_seconds: float
    cpu: Ratio
    wall: Ratio
    goal: float | None = None
    floor: float | None = None
    mib: float | None = None
    other_mib: float | None = None


def run(task: Task, rounds: int, device: torch.device) -> list[Comparison]:
    """Time all arms of a task in turn; a first round warms up and does not count.

    On an accelerator both times are taken when it has finished, and the clock's is the one to read.

    Args:
        task: The task.
        rounds: Rounds that count, times the task's own ``turns``.
        device: Where the arms compute.

    Raises:
        AssertionError: If arms that should compute the same do not, or a result is not finite.
    """
    names = list(task.arms)
    cpu: dict[str, list[float]] = {name: [] for name in names}
    wall: dict[str, list[float]] = {name: [] for name in names}
    results: dict[str, Tensor] = {}
    for turn in range(rounds * task.turns + 1):
        for name in names if turn % 2 else names[::-1]:
            synchronize(device)
            begin = time.process_time(), time.perf_counter()
            result = task.arms[name]()
            synchronize(device)
            end = time.process_time(), time.perf_counter()
            assert result.isfinite().all(), f"{task.name}: {name} is not finite"
            results[name] = result
            if turn:
                cpu[name].append(end[0] - begin[0])
                wall[name].append(end[1] - begin[1])
    first = names[0]
    for name, tolerance in task.equal.items():
        torch.testing.assert_close(
            results[first], results[name], rtol=tolerance, atol=tolerance, msg=_message(task, name)
        )
    return [
        Comparison(
            task=task.name,
            arm=first,
            other=name,
            seconds=statistics.median(cpu[first]),
            other_seconds=statistics.median(cpu[name]),
            cpu=_ratio(cpu[first], cpu[name]),
            wall=_ratio(wall[first], wall[name]),
            goal=task.goals.get(name),
            floor=None if task.floor is None else task.floor.seconds,
        )
        for name in names[1:]
    ]


def synchronize(device: torch.device) -> None:
    """Wait until a device has done what it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _ratio(arm_seconds: list[float], other: list[float]) -> Ratio:
    ratios = [a / b for a, b in zip(arm_seconds, other, strict=True)]
    return Ratio(median=statistics.median(ratios), low=min(ratios), high=max(ratios))


def _message(task: Task, name: str) -> Callable[[str], str]:
    return lambda message: f"{task.name}: {next(iter(task.arms))} and {name} differ: {message}"
