"""The sentences under a table: how to read it, what is missing, what it cannot say."""

from pretzel.ablation.ledger import State
from pretzel.ablation.report.cell_texts import INCOMPARABLE, SIGNIFICANT, p
from pretzel.ablation.report.comparison import Comparison
from pretzel.ablation.report.statistics import ALPHA, CONFIDENCE, POWER, seeds_needed
from pretzel.ablation.report.table import MetricColumn, ResultTable
from pretzel.errors import did_you_mean


def reading(summary: ResultTable) -> list[str]:
    """Say how the tables are read."""
    notes = [
        f"Mean ± half of the {CONFIDENCE:.0%} t interval over n seeds; Δ is the mean of the "
        "differences at the same seed, with its own interval. ↑ more is better, ↓ less is better. "
        "Bold: the best mean of the arms that have all their seeds.",
        "p: exact two-sided sign-flip permutation test of the paired differences; Holm: corrected "
        f"over the arms compared in that metric. {SIGNIFICANT} significant: Holm's p is at most "
        f"{ALPHA:.2f}. Could detect: the smallest true difference that a paired t test at the "
        f"uncorrected {ALPHA:.0%} level would find with {POWER:.0%} power, given the observed "
        "spread of the differences.",
    ]
    if summary.comparison.has_stages:
        notes.append("Train time counts the stages that a cell starts from, also shared ones.")
    return notes


def reach(summary: ResultTable) -> list[str]:
    """Say what so many seeds can tell at all."""
    alike: dict[tuple[int, int], list[MetricColumn]] = {}
    for column in summary.columns:
        if column.compared:
            alike.setdefault((column.pairs, column.compared), []).append(column)
    return [_reach(columns, alone=len(alike) == 1) for columns in alike.values()]


def _reach(columns: list[MetricColumn], *, alone: bool) -> str:
    one = columns[0]
    seeds = "1 seed" if one.pairs == 1 else f"{one.pairs} seeds"
    told = f"With {seeds} the smallest p is {p(one.smallest_p)}"
    if one.compared > 1:
        told += f", after Holm's correction over {one.compared} arms {p(one.smallest_p_holm)}"
    if not alone:
        told = f"{', '.join(c.metric.name for c in columns)}: {told[0].lower()}{told[1:]}"
    if one.smallest_p_holm <= ALPHA:
        return f"{told}."
    return (
        f"{told}: no difference can be called significant, however large. "
        f"That takes {seeds_needed(one.compared)} seeds."
    )


def incomparable(summary: ResultTable) -> list[str]:
    """Say which metrics may not be compared across all arms, and why."""
    return [
        f"{INCOMPARABLE} {column.metric.name} must not be compared across these arms, and is not "
        f"ranked: they differ in {column.scale.reason}."
        for column in summary.columns
        if not column.scale.everywhere
    ]


def tuned(comparison: Comparison) -> list[str]:
    """Say what was chosen for arms before the comparison, of how many runs, and by what."""
    notes = [
        f"Tuned before the comparison: {arm}: {one.told(len(comparison.by_arm[arm]))}"
        for arm, all_tuned in comparison.tuned.items()
        for one in all_tuned
    ]
    if not notes:
        return []
    trials = {t.run for ones in comparison.tuned.values() for one in ones for t in one.trials}
    others = [a for a in comparison.arms if a not in comparison.tuned and comparison.by_arm[a]]
    told = f"; not tuned: {', '.join(others)}" if others else ""
    return [*notes, f"{len(trials)} candidate runs in all, not counted in train time{told}"]


def provenance(summary: ResultTable) -> list[str]:
    """Say what metrics were computed from, where it is recorded."""
    return [
        f"{column.metric.name}: "
        + ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in column.scale.facts.items())
        for column in summary.columns
        if column.scale.facts
    ]


def missing(comparison: Comparison) -> list[str]:
    """Say what is not in the table, with the reasons, and what is there in spite of some."""
    notes = []
    for arm, reasons in comparison.absent.items():
        notes += [f"n/a: {arm}{link and f', {link}'}: {why}" for link, why in reasons.items()]
    alike: dict[tuple[str, State, str], list[str]] = {}
    for cell in comparison.runs:
        if cell.state is not State.DONE:
            alike.setdefault((cell.arm, cell.state, cell.trouble), []).append(f"seed{cell.seed}")
    for (arm, state, why), seeds in alike.items():
        reason = f": {why}" if why else ""
        notes.append(f"Not in the table: {arm}/{', '.join(seeds)} ({state.value}){reason}")
    adopted: dict[tuple[str, str], list[str]] = {}
    for cell in comparison.runs:
        if cell.adopted:
            adopted.setdefault((cell.arm, cell.adopted), []).append(f"seed{cell.seed}")
    for (arm, what), seeds in adopted.items():
        notes.append(
            f"In the table although it differs: {arm}/{', '.join(seeds)} (adopted): {what}"
        )
    return notes + _unlogged(comparison)


def _unlogged(comparison: Comparison) -> list[str]:
    """Say which metrics no cell has, and what was meant: a typo must not look like n/a."""
    done = [cell for cell in comparison.runs if cell.state is State.DONE]
    logged = {name for cell in done for name in cell.metrics}
    return [
        f"No cell logged {metric.name}{did_you_mean(metric.name, logged)}"
        for metric in comparison.metrics
        if done and metric.name not in logged
    ]
