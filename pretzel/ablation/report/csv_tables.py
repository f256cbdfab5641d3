"""The numbers as CSV: the metrics of every run, and the table."""

import csv
import io
from typing import Any

from pretzel.ablation.ledger import State
from pretzel.ablation.report.item_statistics import ItemMean
from pretzel.ablation.report.statistics import SeedMean
from pretzel.ablation.report.table import MISSING, NOT_APPLICABLE, ArmRow, MetricColumn, ResultTable


def values(table: ResultTable) -> str:
    """Return one row for each arm, seed and metric of the table (``compare.csv``).

    Columns: arm, one for each axis with the arm's choice, seed, metric, direction, state (``n/a``
    where a finished run, or the whole arm, does not have the metric), value, the trouble with a
    run that is not done or whose result was edited, and what was chosen before the comparison.
    """
    c = table.comparison
    records: list[dict[str, Any]] = []
    for row in table.rows:
        tunings = c.tunings.get(row.arm, ())
        arm = {"arm": row.arm} | {axis: c.choices[row.arm].get(axis, "") for axis in c.axes}
        for column in table.columns:
            name, direction = column.metric.name, column.metric.direction
            record = arm | {"seed": None, "metric": name, "direction": direction}
            if not row.runs:
                reasons = "; ".join(c.absent[row.arm].values())
                absent = {"state": NOT_APPLICABLE, "value": None, "trouble": reasons, "tuned": None}
                records.append(record | absent)
            for run in row.runs:
                is_absent = run.state is State.DONE and name not in run.metrics
                records.append(
                    record
                    | {"seed": run.seed, "state": NOT_APPLICABLE if is_absent else run.state.value}
                    | {"value": run.metrics.get(name), "trouble": run.trouble or run.fault}
                    | {"tuned": "; ".join(tuning.chosen.get(run.seed, "") for tuning in tunings)}
                )
    return _csv(records)


def summary(table: ResultTable) -> str:
    """Return one row for each arm and metric (``compare_summary.csv``).

    Numbers are not rounded; what does not exist is empty. ``state`` is ``n/a`` or ``missing``
    where there is no mean.
    """
    return _csv([_record(table, row, column) for row in table.rows for column in table.columns])


def items(table: ResultTable) -> str:
    """Return what test items tell (``compare_items.csv``).

    A row for each arm and metric, with halves of 95 % intervals, and for each seed of an arm that
    is compared to the baseline: then with its seed.
    """
    records: list[dict[str, Any]] = []
    for metric, by_arm in table.items.metrics.items():
        base = by_arm.get(table.comparison.baseline)
        for arm, entry in by_arm.items():
            own, found = entry.own, entry.difference
            difference = None if found is None else found.mean
            names = {"arm": arm, "metric": metric.name, "direction": metric.direction}
            whole = {
                "seed": None,
                "items": own.num_items,
                "groups": own.num_groups,
                **_halves("", own),
                "ci95_floor": own.floor,
                **_halves("difference", difference),
                "better": found and sum(found.better),
                "worse": found and sum(found.worse),
                "p": found and found.p,
                "p_holm": entry.p_holm,
            }
            records.append(names | whole)
            if found is None or base is None:
                continue
            columns = entry.kept.shared(base.kept), found.better, found.worse, found.ps
            records += [
                names | dict.fromkeys(whole) | dict(zip(_OF_SEED, row, strict=True))
                for row in zip(*columns, strict=True)
            ]
    return _csv(records)


_OF_SEED = ("seed", "better", "worse", "p")


def _halves(name: str, mean: ItemMean | None) -> dict[str, float | None]:
    values = (mean.mean, mean.seeds, mean.items, mean.both) if mean else [None] * 4
    heads = [name or "mean", *(f"{name}_ci95_{x}".strip("_") for x in ("seeds", "items", "both"))]
    return dict(zip(heads, values, strict=True))


def _record(table: ResultTable, row: ArmRow, column: MetricColumn) -> dict[str, Any]:
    entry = row.entries[column.metric.name]
    tunings = table.comparison.tunings.get(row.arm, ())
    trainable, frozen = row.parameters or (None, None)
    difference = entry.difference
    paired = difference.mean if difference else None
    return {
        "arm": row.arm,
        "baseline": row.is_baseline,
        "metric": column.metric.name,
        "direction": column.metric.direction,
        "state": {"": "ok", MISSING: "missing", NOT_APPLICABLE: NOT_APPLICABLE}[entry.absence],
        "cells_done": row.done,
        "runs": len(row.runs),
        "n": entry.own.n if entry.own else 0,
        **_mean(entry.own, "mean", "sd", "ci95_half_width"),
        "best": entry.best,
        "comparable": entry.comparable,
        **_mean(paired, "difference", "difference_sd", "difference_ci95_half_width"),
        "pairs": paired and paired.n,
        "p": difference and difference.p,
        "p_holm": difference and difference.p_holm,
        "smallest_p_holm": difference and difference.smallest_p,
        "detectable": difference and difference.detectable,
        "significant": entry.significant,
        "trainable_parameters": trainable,
        "frozen_parameters": frozen,
        "step_seconds": row.step_seconds,
        "peak_memory_bytes": row.peak_memory_bytes,
        "train_seconds": row.train_seconds,
        "tuned": "; ".join(tuning.winners_text(len(row.runs)) for tuning in tunings),
        "tuning_candidates": len({run.run for tuning in tunings for run in tuning.candidates}),
        "tuning_metric": tunings[0].metric if tunings else None,
    }


def _mean(mean: SeedMean | None, *columns: str) -> dict[str, float | None]:
    values = (mean.mean, mean.sd, mean.half_width) if mean else (None, None, None)
    return dict(zip(columns, values, strict=True))


def _csv(records: list[dict[str, Any]]) -> str:
    """Return records as text: nan is a value that diverged, an empty field one that is not there.

    Not by pandas, which writes both in the same way.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, records[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()
