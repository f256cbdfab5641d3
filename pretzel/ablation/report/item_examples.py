"""The test items on which an arm and the baseline differ most, with what both said of them."""

import re
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from pretzel.ablation.gridfile.grid import Metric
from pretzel.ablation.protocols import SampleResult
from pretzel.ablation.report.comparison import Comparison
from pretzel.ablation.report.item_table import ArmItems, ItemTable
from pretzel.ablation.sample_file import read_samples

MOST_LISTS = 40
"""Lists on the page: of metrics in the grid's order."""
_EACH_WAY = 5
"""Items of a list on which the arm is better, and on which it is worse."""
_PNG = re.compile(r"iVBORw0KGgo[A-Za-z0-9+/]{1,60000}={0,2}")

_Shown = dict[tuple[str, str, str], SampleResult]
"""Results with texts, by run, metric and item."""


@dataclass(frozen=True, kw_only=True)
class ItemSide:
    """An item as one of the two arms has it."""

    value: float
    texts: dict[str, str]  # that are not the same in both
    picture: str  # a data address; empty without


@dataclass(frozen=True, kw_only=True)
class ItemExample:
    """One item, at the seed where the arms differ most on it."""

    item: str
    difference: float  # mean over seeds
    seed: int
    texts: dict[str, str]  # the same in both arms
    base: ItemSide
    arm: ItemSide


@dataclass(frozen=True, kw_only=True)
class ItemExamples:
    """Items of one metric on which one arm differs most from the baseline."""

    metric: Metric
    arm: str
    better: list[ItemExample]
    worse: list[ItemExample]


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    item: str
    difference: float
    seed: int
    values: tuple[float, float]  # of the baseline and of the arm, at the seed


def item_examples(comparison: Comparison, table: ItemTable) -> list[ItemExamples]:
    """Return the lists of all metrics and arms that are compared, as many as a page takes."""
    chosen = []
    for metric, by_arm in table.metrics.items():
        for arm, entry in by_arm.items():
            if entry.difference is not None:
                base = by_arm[comparison.baseline].kept
                chosen.append((metric, arm, *_most_different(metric, entry.kept, base)))
    runs = {(run.arm, run.seed): run for run in comparison.runs}
    wanted: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for metric, arm, better, worse in chosen[:MOST_LISTS]:
        for one in (*better, *worse):
            for name in (comparison.baseline, arm):
                wanted[runs[name, one.seed].name].add((metric.name, one.item))
    shown: _Shown = {}
    for run in comparison.runs:
        if run.name in wanted and run.samples is not None:
            for sample in read_samples(comparison.folder(run).path, run.samples):
                keys = {(metric, sample["item"]) for metric in sample["values"]}
                shown |= dict.fromkeys(
                    ((run.name, *key) for key in keys & wanted[run.name]), sample
                )

    def example(metric: Metric, arm: str, one: _Chosen) -> ItemExample:
        names = (runs[name, one.seed].name for name in (comparison.baseline, arm))
        return _example(one, *(shown[name, metric.name, one.item] for name in names))

    return [
        ItemExamples(
            metric=metric,
            arm=arm,
            better=[example(metric, arm, one) for one in better],
            worse=[example(metric, arm, one) for one in worse],
        )
        for metric, arm, better, worse in chosen[:MOST_LISTS]
    ]


def _most_different(
    metric: Metric, arm: ArmItems, base: ArmItems
) -> tuple[list[_Chosen], list[_Chosen]]:
    """Return the items on which an arm is most better, and most worse."""
    differences = arm.differences(base) * (1 if metric.direction == "max" else -1)
    seeds, means = arm.shared(base), differences.mean(axis=0)
    lists: tuple[list[_Chosen], list[_Chosen]] = ([], [])
    for sign, chosen in zip((1, -1), lists, strict=True):
        for place in np.argsort(-sign * means, kind="stable")[:_EACH_WAY].tolist():
            if not sign * means[place] > 0:
                break
            seed = seeds[int((sign * differences[:, place]).argmax())]
            values = float(base.values[seed][place]), float(arm.values[seed][place])
            mean = float(arm.differences(base)[:, place].mean())
            item = arm.items[place][0]
            chosen.append(_Chosen(item=item, difference=mean, seed=seed, values=values))
    return lists


def _example(chosen: _Chosen, *samples: SampleResult) -> ItemExample:
    texts = [sample.get("texts", {}) for sample in samples]
    common = {name: text for name, text in texts[0].items() if texts[1].get(name) == text}
    sides = [
        ItemSide(
            value=value,
            texts={name: text for name, text in own.items() if name not in common},
            picture=_address(sample.get("picture", "")),
        )
        for value, own, sample in zip(chosen.values, texts, samples, strict=True)
    ]
    return ItemExample(
        item=chosen.item,
        difference=chosen.difference,
        seed=chosen.seed,
        texts=common,
        base=sides[0],
        arm=sides[1],
    )


def _address(picture: str) -> str:
    """Return a picture as a data address; empty where it is none, or a large one."""
    return f"data:image/png;base64,{picture}" if _PNG.fullmatch(picture) else ""
