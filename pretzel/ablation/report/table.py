"""The comparison table as values, from which every format is written."""

import math
from dataclasses import dataclass

from pretzel.ablation.gridfile.grid import Metric
from pretzel.ablation.ledger import State
from pretzel.ablation.report import statistics
from pretzel.ablation.report.comparability import Comparability, judge
from pretzel.ablation.report.comparison import Comparison, RunResult
from pretzel.ablation.report.statistics import Difference, SeedMean

NOT_APPLICABLE = "n/a"
MISSING = "—"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One metric of one arm.

    Attributes:
        values: By seed.
        own: Mean over seeds; None without values.
        absence: Why there is no mean: ``n/a`` or ``—`` (not there yet).
        difference: To the baseline; None for the baseline, and where there is no pair of seeds.
        comparable: Whether it shares its scale with the baseline.
        best: Whether it is the best mean, of those that may be ranked.
    """

    values: dict[int, float]
    own: SeedMean | None
    absence: str
    difference: Difference | None
    comparable: bool
    best: bool

    @property
    def significant(self) -> bool:
        """Whether its difference is."""
        return self.difference is not None and self.difference.significant


@dataclass(frozen=True, kw_only=True)
class ArmRow:
    """One arm.

    Attributes:
        arm: Its name.
        is_baseline: Whether differences are taken to it.
        runs: Its runs.
        entries: By metric.
        parameters: Trainable and frozen; None while nothing is done.
        step_seconds: Mean over its runs that recorded it.
        peak_memory_bytes: Largest of its runs that recorded it.
        train_seconds: Mean over its runs.
    """

    arm: str
    is_baseline: bool
    runs: tuple[RunResult, ...]
    entries: dict[str, Entry]
    parameters: tuple[int, int] | None
    step_seconds: float | None
    peak_memory_bytes: int | None
    train_seconds: float | None

    @property
    def done(self) -> int:
        """Number of finished runs."""
        return sum(run.state is State.DONE for run in self.runs)

    @property
    def counted(self) -> str:
        """``5``, ``3 of 5 (1 failed, 1 pending)`` or ``n/a``."""
        if not self.runs:
            return NOT_APPLICABLE
        if self.done == len(self.runs):
            return str(self.done)
        states = [run.state for run in self.runs if run.state is not State.DONE]
        counts = [f"{states.count(state)} {state.value}" for state in dict.fromkeys(states)]
        return f"{self.done} of {len(self.runs)} ({', '.join(counts)})"


@dataclass(frozen=True, kw_only=True)
class MetricColumn:
    """One metric.

    Attributes:
        metric: Its name and direction.
        scale: How far arms may be compared.
        compared: Number of arms that are compared to the baseline.
        pairs: Most seeds that an arm shares with the baseline.
    """

    metric: Metric
    scale: Comparability
    compared: int
    pairs: int

    @property
    def smallest_p(self) -> float:
        """The smallest p that so many pairs can reach."""
        return statistics.smallest_p(self.pairs)

    @property
    def smallest_p_holm(self) -> float:
        """The same, where all arms compared have it."""
        return min(1.0, self.compared * self.smallest_p)


@dataclass(frozen=True, kw_only=True)
class ResultTable:
    """The whole table."""

    comparison: Comparison
    columns: tuple[MetricColumn, ...]
    rows: tuple[ArmRow, ...]


def result_table(comparison: Comparison) -> ResultTable:
    """Return the table of a grid."""
    scales = judge(comparison)
    entries: dict[str, dict[str, Entry]] = {arm: {} for arm in comparison.arms}
    columns = []
    for metric in comparison.metrics:
        column, by_arm = _column(comparison, metric, scales[metric.name])
        columns.append(column)
        for arm, entry in by_arm.items():
            entries[arm][metric.name] = entry
    rows = tuple(_row(comparison, arm, entries[arm]) for arm in comparison.arms)
    return ResultTable(comparison=comparison, columns=tuple(columns), rows=rows)


def _column(
    comparison: Comparison, metric: Metric, scale: Comparability
) -> tuple[MetricColumn, dict[str, Entry]]:
    name, base = metric.name, comparison.baseline
    comparable = {arm: scale.groups[arm] == scale.groups[base] for arm in comparison.arms}
    pairs = {
        arm: [*comparison.differences(arm, name).values()]
        for arm in comparison.arms
        if arm != base and comparable[arm]
    }
    differences = statistics.compare(pairs)
    values = {arm: comparison.values(arm, name) for arm in comparison.arms}
    means = {arm: statistics.seed_mean([*values[arm].values()]) for arm in comparison.arms}
    best = _best(comparison, metric, means) if scale.everywhere else set()
    column = MetricColumn(
        metric=metric,
        scale=scale,
        compared=len(differences),
        pairs=max((difference.mean.n for difference in differences.values()), default=0),
    )
    return column, {
        arm: Entry(
            values=values[arm],
            own=mean,
            absence=_absence(comparison, arm) if mean is None else "",
            difference=differences.get(arm),
            comparable=comparable[arm],
            best=arm in best,
        )
        for arm, mean in means.items()
    }


def _absence(comparison: Comparison, arm: str) -> str:
    is_done = any(True for _ in comparison.done(arm))
    return NOT_APPLICABLE if is_done or not comparison.by_arm[arm] else MISSING


def _best(comparison: Comparison, metric: Metric, means: dict[str, SeedMean | None]) -> set[str]:
    """Return the arms with the best mean, of those that have every seed and a number."""
    complete = {
        arm: mean.mean
        for arm, mean in means.items()
        if mean is not None and math.isfinite(mean.mean) and mean.n == len(comparison.by_arm[arm])
    }
    if len(complete) < 2:
        return set()
    best = (max if metric.direction == "max" else min)(complete.values())
    return {arm for arm, mean in complete.items() if mean == best}


def _row(comparison: Comparison, arm: str, entries: dict[str, Entry]) -> ArmRow:
    done = [*comparison.done(arm)]
    steps = [run.step_seconds for run in done if run.step_seconds is not None]
    memory = [run.peak_memory_bytes for run in done if run.peak_memory_bytes is not None]
    return ArmRow(
        arm=arm,
        is_baseline=arm == comparison.baseline,
        runs=comparison.by_arm[arm],
        entries=entries,
        parameters=(done[0].trainable, done[0].frozen) if done else None,
        step_seconds=sum(steps) / len(steps) if steps else None,
        peak_memory_bytes=max(memory, default=None),
        train_seconds=sum(run.train_seconds for run in done) / len(done) if done else None,
    )
