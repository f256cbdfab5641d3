"""Texts of the tables of test items, the same in every format."""

from pretzel.ablation.report.cell_texts import number, p_value
from pretzel.ablation.report.item_table import ItemTable
from pretzel.ablation.report.statistics import CONFIDENCE

MEAN_HEADS = ["metric", "arm", "items", "mean", "± seeds", "± items", "± both", "± floor"]
DIFFERENCE_HEADS = [
    "metric", "arm", "Δ", "± seeds", "± items", "± both", "mostly", "better : worse",
    "p of each seed", "p", "Holm",
]  # fmt: skip


def mean_lines(table: ItemTable) -> list[list[str]]:
    """Return the table of means, its head first: a line for each metric and arm."""
    lines = [MEAN_HEADS]
    for metric, by_arm in table.metrics.items():
        for arm, entry in by_arm.items():
            own = entry.own
            in_groups = f" in {own.num_groups}" if own.num_groups < own.num_items else ""
            halves = map(number, (own.mean, own.seeds, own.items, own.both))
            floor = "" if own.floor is None else number(own.floor)
            items = f"{own.num_items}{in_groups}"
            lines.append([f"{metric.name} {metric.arrow}", arm, items, *halves, floor])
    return lines


def difference_lines(table: ItemTable) -> list[list[str]]:
    """Return the table of differences, its head first: a line for each metric and arm compared."""
    lines = [DIFFERENCE_HEADS]
    for metric, by_arm in table.metrics.items():
        for arm, entry in by_arm.items():
            if (found := entry.difference) is None:
                continue
            mean = found.mean
            halves = map(number, (mean.seeds, mean.items, mean.both))
            line = [f"{metric.name} {metric.arrow}", arm, f"{mean.mean:+.3g}", *halves]
            line += [mean.mostly, f"{sum(found.better)} : {sum(found.worse)}"]
            line += [", ".join(map(p_value, found.ps)), p_value(found.p), p_value(entry.p_holm)]
            lines.append(line)
    return lines


def reading(table: ItemTable) -> list[str]:
    """Say how the tables are read, and what was kept and is not in them."""
    notes = [f"Items: {fault}." for fault in table.faults]
    if not table.metrics:
        return notes
    return [
        f"Halves of {CONFIDENCE:.0%} intervals. ± seeds: were it trained again and tested on the "
        "same items. ± items: were these trained models tested on other items of the kind (items "
        "of one group, such as the questions about one image, count as one). ± both: the root of "
        "the sum of their squares. ± floor: what so many independent right and wrong items leave "
        "open of one model, 1.96 √(p (1 − p) / n). Mostly: the larger of the two sources, and so "  # noqa: RUF001
        "what more of would help.",
        "Better : worse: items of all seeds on which the arm and the baseline differ. p: "
        "two-sided, by flipping the signs of the differences of items (of groups), at each seed, "
        "and of their sums over seeds; of single items that are right or wrong that is McNemar's "
        "exact test. Holm: corrected over the arms compared. These p speak of the models that were "
        "trained, on other items; whether training again would give the like, only the test over "
        "seeds says.",
        *notes,
    ]
