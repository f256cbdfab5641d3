"""The numbers as CSV: every cell's metrics, and the table."""

import csv
import io

from pretzel.ablation.ledger import State
from pretzel.ablation.report.table import MISSING, NOT_APPLICABLE, ArmRow, ResultTable
from pretzel.ablation.report.tuning import ArmTuning


def values(summary: ResultTable) -> str:
    """Return one row for each arm, seed and metric of the table (``compare.csv``).

    Columns: arm, one for each axis with the arm's choice, seed, metric, direction, state (``n/a``
    where a finished cell, or the whole arm, does not have the metric), value, the trouble of a
    cell that is not done, and what was chosen for it before the comparison.
    """
    c = summary.comparison
    axes = [*c.axes]
    lines = [["arm", *axes, "seed", "metric", "direction", "state", "value", "trouble", "tuned"]]
    for row in summary.rows:
        choices = [c.choices[row.arm].get(axis, "") for axis in axes]
        tuned = c.tuned.get(row.arm, ())
        for column in summary.columns:
            name, direction = column.metric.name, column.metric.direction
            if not row.runs:
                why = "; ".join(c.absent[row.arm].values())
                lines.append([row.arm, *choices, "", name, direction, NOT_APPLICABLE, "", why, ""])
            for cell in row.runs:
                found = cell.metrics.get(name)
                state = cell.state.value
                if cell.state is State.DONE and found is None:
                    state = NOT_APPLICABLE
                shown = "" if found is None else repr(found)
                chosen = "; ".join(one.chosen.get(cell.seed, "") for one in tuned)
                told = [state, shown, cell.trouble, chosen]
                lines.append([row.arm, *choices, str(cell.seed), name, direction, *told])
    return _csv(lines)


def table(summary: ResultTable) -> str:
    """Return one row for each arm and metric (``compare_summary.csv``).

    Numbers are not rounded; what does not exist is empty. ``state`` is ``n/a`` or ``missing``
    where there is no mean.
    """
    lines = [
        ["arm", "baseline", "metric", "direction", "state", "cells_done", "cells", "n", "mean",
         "sd", "ci95_half_width", "best", "comparable", "difference", "difference_sd",
         "difference_ci95_half_width", "pairs", "p", "p_holm", "smallest_p_holm", "detectable",
         "significant", "trainable_parameters", "frozen_parameters", "step_seconds",
         "peak_memory_bytes", "train_seconds", "tuned", "tuning_candidates", "tuning_metric"]
    ]  # fmt: skip
    for row in summary.rows:
        tuned = summary.comparison.tuned.get(row.arm, ())
        lines += [
            _line(row, column.metric.name, column.metric.direction, tuned)
            for column in summary.columns
        ]
    return _csv(lines)


def _line(row: ArmRow, metric: str, direction: str, tuned: tuple[ArmTuning, ...]) -> list[str]:
    entry = row.entries[metric]
    own, difference = entry.own, entry.difference
    paired = None if difference is None else difference.estimate
    trainable, frozen = row.parameters or (None, None)
    state = {"": "ok", MISSING: "missing", NOT_APPLICABLE: NOT_APPLICABLE}[entry.absence]
    cells: list[object] = [
        row.arm,
        row.is_baseline,
        metric,
        direction,
        state,
        row.done,
        len(row.runs),
        *((own.n, own.mean, own.sd, own.half_width) if own else (0, None, None, None)),
        entry.best,
        entry.comparable,
        *((paired.mean, paired.sd, paired.half_width, paired.n) if paired else [None] * 4),
        *((difference.p, difference.p_holm, difference.smallest_p) if difference else [None] * 3),
        difference.detectable if difference else None,
        entry.significant,
        trainable,
        frozen,
        row.step_seconds,
        row.peak_memory_bytes,
        row.train_seconds,
        "; ".join(one.winners_told(len(row.runs)) for one in tuned),
        len({trial.run for one in tuned for trial in one.trials}),
        tuned[0].metric if tuned else None,
    ]
    return ["" if cell is None else str(cell) for cell in cells]


def _csv(lines: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
