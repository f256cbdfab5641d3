"""Cost of whole processes: time on the clock, and CPU time of all that they start."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Ratio

_LINE_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Time of some work.

    Attributes:
        clock: Seconds on the clock.
        cpu: CPU seconds.
    """

    clock: float
    cpu: float


@dataclass(frozen=True, kw_only=True)
class Against:
    """Rounds of some work beside those of other work.

    Attributes:
        work: What was measured.
        other: What it is compared to.
        costs: Its rounds.
        others: Those of the other.
        goal: Greatest ratio that is aimed at.
    """

    work: str
    other: str
    costs: Sequence[Cost]
    others: Sequence[Cost]
    goal: float

    @property
    def clock(self) -> Ratio:
        """Ratio of the times on the clock."""
        return self._ratio(lambda one: one.clock)

    @property
    def cpu(self) -> Ratio:
        """Ratio of the CPU times."""
        return self._ratio(lambda one: one.cpu)

    def _ratio(self, of: Callable[[Cost], float]) -> Ratio:
        ratios = [of(a) / of(b) for a, b in zip(self.costs, self.others, strict=True)]
        return Ratio(median=statistics.median(ratios), low=min(ratios), high=max(ratios))


def say(line: str) -> None:
    """Tell how far the measurement is, on standard error."""
    print(line, file=sys.stderr, flush=True)


def cost(work: Callable[[], object], *living: int) -> Cost:
    """Return what a function costs: this process and all that have ended when it returns.

    Args:
        work: The function.
        *living: Processes that go on; they and those of theirs that have ended count too.
    """
    begin = time.perf_counter(), _cpu(living)
    work()
    return Cost(clock=time.perf_counter() - begin[0], cpu=_cpu(living) - begin[1])


def _cpu(living: Sequence[int]) -> float:
    seconds = sum(os.times()[:4])
    for process in living:
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError as error:
            raise SystemExit(f"CPU time of a living process: needs Linux ({error})") from error
        seconds += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return seconds


def run(name: str, commands: Sequence[Sequence[str]], folder: Path, at_once: int) -> None:
    """Run commands, so many at a time, and tell every ten seconds that they run.

    Args:
        name: What they are, for the lines.
        commands: What to run.
        folder: Where.
        at_once: The most that run at the same time.

    Raises:
        RuntimeError: If one fails.
    """
    begin = time.perf_counter()
    with ThreadPoolExecutor(at_once) as threads:
        pending: set[Future[str]] = {
            threads.submit(output, command, folder) for command in commands
        }
        while pending:
            done, pending = wait(pending, _LINE_SECONDS, "FIRST_COMPLETED")
            for one in done:
                one.result()
            seconds = time.perf_counter() - begin
            say(f"  {name}: {len(commands) - len(pending)} of {len(commands)}, {seconds:.0f} s")


def output(command: Sequence[str], folder: Path) -> str:
    """Run a command on one thread, and return what it says on both streams.

    Args:
        command: What to run.
        folder: Where.

    Raises:
        RuntimeError: If it fails.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        command, cwd=folder, env=environment, stdout=-1, stderr=subprocess.STDOUT, text=True
    )
    if ended.returncode:
        raise RuntimeError(f"{' '.join(command)} has failed:\n{ended.stdout[-3000:]}")
    return ended.stdout


def in_turn(arms: Mapping[str, Callable[[], Cost]], rounds: int) -> dict[str, list[Cost]]:
    """Return the rounds of all arms; each second round runs them from the last to the first."""
    costs: dict[str, list[Cost]] = {name: [] for name in arms}
    for turn in range(rounds):
        for name in list(arms)[:: -1 if turn % 2 else 1]:
            say(f"round {turn + 1} of {rounds}: {name}")
            costs[name].append(arms[name]())
            say(f"  took {costs[name][-1].clock:.1f} s, {costs[name][-1].cpu:.1f} s of CPU time")
    return costs
