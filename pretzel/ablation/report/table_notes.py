"""The sentences under a table: how to read it, what is missing, what it cannot say."""

from pretzel.ablation.ledger import State
from pretzel.ablation.report.cell_texts import INCOMPARABLE, SIGNIFICANT, p_value
from pretzel.ablation.report.comparison import Comparison
from pretzel.ablation.report.statistics import ALPHA, CONFIDENCE, POWER, seeds_needed, smallest_p
from pretzel.ablation.report.table import MetricColumn, ResultTable
from pretzel.errors import did_you_mean


def reading(table: ResultTable) -> list[str]:
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
    if table.comparison.has_stages:
        notes.append("Train time counts the stages that a run starts from, also shared ones.")
    return notes


def reach(table: ResultTable) -> list[str]:
    """Say what so many seeds can tell at all."""
    alike: dict[tuple[int, int], list[MetricColumn]] = {}
    for column in table.columns:
        if column.compared:
            alike.setdefault((column.pairs, column.compared), []).append(column)
    return [_reach(columns, alone=len(alike) == 1) for columns in alike.values()]


def _reach(columns: list[MetricColumn], *, alone: bool) -> str:
    pairs, compared = columns[0].pairs, columns[0].compared
    smallest = smallest_p(pairs)
    corrected = min(1.0, compared * smallest)  # where all arms compared have it
    seeds = "1 seed" if pairs == 1 else f"{pairs} seeds"
    sentence = f"{seeds} the smallest p is {p_value(smallest)}"
    if compared > 1:
        sentence += f", after Holm's correction over {compared} arms {p_value(corrected)}"
    names = ", ".join(column.metric.name for column in columns)
    sentence = f"With {sentence}" if alone else f"{names}: with {sentence}"
    if corrected <= ALPHA:
        return f"{sentence}."
    return (
        f"{sentence}: no difference can be called significant, however large. "
        f"That takes {seeds_needed(compared)} seeds."
    )


def warnings(table: ResultTable) -> list[str]:
    """Say which runs are the same though they claim not to be, and what may not be compared."""
    notes = [f"Twins: {sentence}." for sentence in table.comparison.twins]
    for column in table.columns:
        if not column.scale.everywhere:
            notes.append(
                f"{INCOMPARABLE} {column.metric.name} must not be compared across these arms, and "
                f"is not ranked: they differ in {column.scale.reason}."
            )
    return notes


def tuned(comparison: Comparison) -> list[str]:
    """Say what was chosen for arms before the comparison, of how many runs, and by what."""
    tunings = comparison.tunings
    notes = [
        f"Tuned before the comparison: {arm}: {tuning.text(len(comparison.by_arm[arm]))}"
        for arm, of_arm in tunings.items()
        for tuning in of_arm
    ]
    if not notes:
        return []
    # Arms may share a tuned stage, and with it its candidates.
    runs = {run.run for of_arm in tunings.values() for one in of_arm for run in one.candidates}
    others = [arm for arm in comparison.arms if arm not in tunings and comparison.by_arm[arm]]
    rest = f"; not tuned: {', '.join(others)}" if others else ""
    return [*notes, f"{len(runs)} candidate runs in all, not counted in train time{rest}"]


def provenance(table: ResultTable) -> list[str]:
    """Say what metrics were computed from, where it is recorded."""
    return [
        f"{column.metric.name}: {facts(column)}" for column in table.columns if column.scale.facts
    ]


def facts(column: MetricColumn) -> str:
    """Say what a metric was computed from, for example ``n 500, resize area 64``."""
    return ", ".join(
        f"{key.replace('_', ' ')} {value}" for key, value in column.scale.facts.items()
    )


def missing(comparison: Comparison) -> list[str]:
    """Say what is not in the table, with the reasons, and what is there in spite of some."""
    notes = []
    for arm, reasons in comparison.absent.items():
        notes += [f"n/a: {arm}{link and f', {link}'}: {why}" for link, why in reasons.items()]
    # Seeds of an arm that have the same to say share a line.
    undone: dict[tuple[str, State, str], list[str]] = {}
    adopted: dict[tuple[str, str], list[str]] = {}
    faults: dict[tuple[str, str], list[str]] = {}
    for run in comparison.runs:
        if run.fault:
            faults.setdefault((run.arm, run.fault), []).append(f"seed{run.seed}")
        if run.state is not State.DONE:
            undone.setdefault((run.arm, run.state, run.trouble), []).append(f"seed{run.seed}")
        if run.adopted:
            adopted.setdefault((run.arm, run.adopted), []).append(f"seed{run.seed}")
    for (arm, state, why), seeds in undone.items():
        reason = f": {why}" if why else ""
        notes.append(f"Not in the table: {arm}/{', '.join(seeds)} ({state.value}){reason}")
    for (arm, what), seeds in adopted.items():
        notes.append(
            f"In the table although it differs: {arm}/{', '.join(seeds)} (adopted): {what}"
        )
    notes += [f"{arm}/{', '.join(seeds)}: {fault}" for (arm, fault), seeds in faults.items()]
    return notes + _unlogged(comparison)


def _unlogged(comparison: Comparison) -> list[str]:
    """Say which metrics no run has, and what was meant: a typo must not look like n/a."""
    done = [run for run in comparison.runs if run.state is State.DONE]
    logged = {name for run in done for name in run.metrics}
    return [
        f"No run logged {metric.name}{did_you_mean(metric.name, logged)}"
        for metric in comparison.metrics
        if done and metric.name not in logged
    ]
