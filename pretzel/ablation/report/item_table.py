"""The results of every arm on the single items of the test, where its runs have kept them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from pretzel.ablation.gridfile.grid import Metric
from pretzel.ablation.report import statistics
from pretzel.ablation.report.comparability import Comparability
from pretzel.ablation.report.comparison import Comparison, RunResult
from pretzel.ablation.report.item_statistics import (
    ItemDifference,
    ItemMean,
    item_difference,
    item_mean,
)
from pretzel.ablation.sample_file import read_samples
from pretzel.errors import UserError

_Items = tuple[tuple[str, str], ...]
"""Names and groups of items, in order of their names."""


@dataclass(frozen=True, kw_only=True)
class ArmItems:
    """One metric of one arm on the items of the test."""

    items: _Items
    values: dict[int, Float[np.ndarray, " items"]]  # by seed

    @property
    def groups(self) -> Int[np.ndarray, " items"]:
        """Number of the group of each item, from 0."""
        return np.unique([group for _, group in self.items], return_inverse=True)[1]

    def differences(self, base: "ArmItems") -> Float[np.ndarray, "seeds items"]:
        """Return the differences to a baseline on the same items, at the seeds of both."""
        return np.stack([self.values[seed] - base.values[seed] for seed in self.shared(base)])

    def shared(self, base: "ArmItems") -> list[int]:
        """Return the seeds of both; none where the items are not the same."""
        return sorted(self.values.keys() & base.values.keys()) if self.items == base.items else []


@dataclass(frozen=True, kw_only=True)
class ItemEntry:
    """One metric of one arm."""

    kept: ArmItems
    own: ItemMean
    difference: ItemDifference | None  # None for the baseline, and where it cannot be compared
    p_holm: float | None  # of the difference, corrected over the arms compared


@dataclass(frozen=True, kw_only=True)
class ItemTable:
    """The metrics whose values are means over items that were kept."""

    metrics: dict[Metric, dict[str, ItemEntry]]  # by arm
    faults: tuple[str, ...]  # what was kept and is not used, and why


def item_table(comparison: Comparison, judged: dict[str, Comparability]) -> ItemTable:
    """Return the table of a grid, empty where its runs have kept no results of items."""
    faults: list[str] = []
    by_metric = _read_all(comparison, faults)
    metrics = {}
    for metric, by_arm in by_metric.items():
        scales, base = judged[metric.name].scales, by_arm.get(comparison.baseline)
        differences: dict[str, ItemDifference] = {}
        for arm, kept in by_arm.items():
            if base is None or kept is base or scales[arm] != scales[comparison.baseline]:
                continue
            if kept.items != base.items:
                faults.append(f"{arm}: {metric.name} is of other items than the baseline's")
            elif kept.shared(base):
                differences[arm] = item_difference(
                    kept.differences(base), kept.groups, metric.direction
                )
        ps = {arm: one.p for arm, one in differences.items() if one.p is not None}
        corrected = statistics.holm(ps, family=len(differences))
        metrics[metric] = {
            arm: ItemEntry(
                kept=kept,
                own=item_mean(np.stack([*kept.values.values()]), kept.groups),
                difference=differences.get(arm),
                p_holm=corrected.get(arm),
            )
            for arm, kept in by_arm.items()
        }
    return ItemTable(metrics=metrics, faults=tuple(faults))


def _read_all(comparison: Comparison, faults: list[str]) -> dict[Metric, dict[str, ArmItems]]:
    """Return what was kept, by metric and arm; of arms with different items at seeds, nothing."""
    by_metric: dict[Metric, dict[str, ArmItems]] = {metric: {} for metric in comparison.metrics}
    shared: dict[_Items, _Items] = {}  # the runs of a grid have the same items
    for arm in comparison.arms:
        for run in comparison.done(arm):
            for metric, items, values in _read(comparison, run, faults):
                items = shared.setdefault(items, items)
                own = by_metric[metric].setdefault(arm, ArmItems(items=items, values={}))
                if own.items is items:
                    own.values[run.seed] = values
                else:
                    faults.append(f"{arm}/seed{run.seed}: {metric.name} is of items of its own")
    return {metric: by_arm for metric, by_arm in by_metric.items() if by_arm}


def _read(
    comparison: Comparison, run: RunResult, faults: list[str]
) -> Iterator[tuple[Metric, _Items, Float[np.ndarray, " items"]]]:
    """Yield each metric of a run that is the mean over its items, with those and their values."""
    found: dict[str, dict[tuple[str, str], float]] = {m.name: {} for m in comparison.metrics}
    if run.samples is None:
        return
    try:
        for sample in read_samples(comparison.folder(run).path, run.samples):
            key = sample["item"], sample.get("group", sample["item"])
            for name in found.keys() & sample["values"].keys():
                value = sample["values"][name]
                found[name][key] = math.nan if value is None else value
    except UserError as error:
        faults.append(f"{run.name}: {error}: its items are left out")
        return
    for metric in comparison.metrics:
        by_item, expected = found[metric.name], run.metrics.get(metric.name, math.nan)
        if not by_item:
            continue
        keys = sorted(by_item)
        values = np.array([by_item[key] for key in keys])
        # as logged, which may be in single precision
        if math.isfinite(expected) and not math.isclose(
            values.mean(), expected, rel_tol=1e-3, abs_tol=1e-6
        ):
            faults.append(f"{run.name}: {metric.name} is not the mean of its items")
        else:
            yield metric, tuple(keys), values
