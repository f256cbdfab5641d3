"""The comparison table as values, from which every format is written."""

import math
from dataclasses import dataclass

from pretzel.ablation.gridfile.grid import Metric
from pretzel.ablation.ledger import State
from pretzel.ablation.report import statistics
from pretzel.ablation.report.comparability import Comparability, judge
from pretzel.ablation.report.comparison import Comparison, RunResult
from pretzel.ablation.report.item_table import ItemTable, item_table
from pretzel.ablation.report.statistics import Difference, SeedMean

NOT_APPLICABLE = "n/a"
MISSING = "—"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One metric of one arm."""

    values: dict[int, float]  # by seed
    own: SeedMean | None  # None without values
    absence: str  # why there is no mean: n/a, or — (not there yet)
    difference: Difference | None  # None for the baseline, and without a pair of seeds
    comparable: bool  # whether it shares its scale with the baseline
    best: bool  # of the means that may be ranked

    @property
    def significant(self) -> bool:
        """Whether its difference is."""
        return self.difference is not None and self.difference.significant


@dataclass(frozen=True, kw_only=True)
class ArmRow:
    """One arm; its costs are None while nothing is done that has recorded them."""

    arm: str
    is_baseline: bool
    runs: tuple[RunResult, ...]
    entries: dict[str, Entry]  # by metric
    parameters: tuple[int, int] | None  # trainable and frozen
    step_seconds: float | None  # mean over runs
    peak_memory_bytes: int | None  # largest of its runs
    train_seconds: float | None  # mean over runs

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
    """One metric."""

    metric: Metric
    scale: Comparability
    compared: int  # number of arms that are compared to the baseline
    pairs: int  # most seeds that an arm shares with the baseline


@dataclass(frozen=True, kw_only=True)
class ResultTable:
    """The whole table."""

    comparison: Comparison
    columns: tuple[MetricColumn, ...]
    rows: tuple[ArmRow, ...]
    items: ItemTable


def result_table(comparison: Comparison) -> ResultTable:
    """Return the table of a grid."""
    judged = judge(comparison)
    columns, entries = [], {}
    for metric in comparison.metrics:
        column, entries[metric.name] = _column(comparison, metric, judged[metric.name])
        columns.append(column)
    rows = tuple(
        _row(comparison, arm, {metric: by_arm[arm] for metric, by_arm in entries.items()})
        for arm in comparison.arms
    )
    items = item_table(comparison, judged)
    return ResultTable(comparison=comparison, columns=tuple(columns), rows=rows, items=items)


def _column(
    comparison: Comparison, metric: Metric, scale: Comparability
) -> tuple[MetricColumn, dict[str, Entry]]:
    """Return the column of a metric, and its entry for each arm."""
    name, base = metric.name, comparison.baseline
    comparable = {arm: own == scale.scales[base] for arm, own in scale.scales.items()}
    pairs = {
        arm: [*comparison.differences(arm, name).values()]
        for arm in comparison.arms
        if arm != base and comparable[arm]
    }
    differences = statistics.compare(pairs)
    values = {arm: comparison.values(arm, name) for arm in comparison.arms}
    means = {
        arm: statistics.seed_mean([*own.values()]) if own else None for arm, own in values.items()
    }
    best = _best(comparison, metric, means) if scale.everywhere else set()
    num_pairs = max((difference.mean.n for difference in differences.values()), default=0)
    column = MetricColumn(metric=metric, scale=scale, compared=len(differences), pairs=num_pairs)
    entries = {}
    for arm, mean in means.items():
        is_unfinished = comparison.by_arm[arm] and not comparison.done(arm)
        absence = MISSING if is_unfinished else NOT_APPLICABLE
        entries[arm] = Entry(
            values=values[arm],
            own=mean,
            absence=absence if mean is None else "",
            difference=differences.get(arm),
            comparable=comparable[arm],
            best=arm in best,
        )
    return column, entries


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
    done = comparison.done(arm)
    steps = [run.step_seconds for run in done if run.step_seconds is not None]
    memory = [run.peak_memory_bytes for run in done if run.peak_memory_bytes is not None]
    return ArmRow(
        arm=arm,
        is_baseline=arm == comparison.baseline,
        runs=comparison.by_arm[arm],
        entries=entries,
        parameters=(done[0].trainable_parameters, done[0].frozen_parameters) if done else None,
        step_seconds=sum(steps) / len(steps) if steps else None,
        peak_memory_bytes=max(memory, default=None),
        train_seconds=sum(run.train_seconds for run in done) / len(done) if done else None,
    )
