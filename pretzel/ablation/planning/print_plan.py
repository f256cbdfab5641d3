"""What ``pretzel grid plan`` prints: runs, arms, what they cost and change, the time it takes."""

import json
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from pretzel.ablation.ledger import State
from pretzel.ablation.planning.plan import Plan
from pretzel.ablation.planning.time_estimate import TimeEstimate, folder_of
from pretzel.ablation.planning.tuning import tried_for
from pretzel.ablation.status_table import StatusRow, duration, table


def show(plan: Plan, stands: Mapping[str, State], time: TimeEstimate, slots: int) -> None:
    """Print a plan.

    Args:
        plan: The plan.
        stands: Where each run stands.
        time: How long it takes.
        slots: Runs at a time, for which the time is told too.
    """
    console = Console()
    names = [metric.name for metric in plan.grid.metrics]
    runs = plan.runs
    rows = [
        StatusRow.of(cell.name, folder_of(plan, cell), cell.identity, cell.evaluation, names)
        for cell in runs
    ]
    tried = len({one.run for cell in runs for one in cell.candidates})
    told_tried = f", {tried} of them candidate runs" if tried else ""
    console.print(table(rows, f"{plan.grid.output}: {len(rows)} runs{told_tried}"))
    console.print(_arms(plan, stands))
    for line in lines(plan):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(told(time, slots), markup=False, highlight=False, soft_wrap=True)


def lines(plan: Plan) -> list[str]:
    """Return what each arm changes against the baseline, and what it lacks."""
    found = []
    for arm, changes in plan.changes.items():
        is_baseline = arm == plan.grid.baseline_name
        found.append(f"{arm}: {'the baseline' if is_baseline else '; '.join(changes)}")
        for key, values in plan.tuned[arm].items():
            found.append(f"{arm}: {key}: tuned over {len(values)} values before the comparison")
        if plan.tuned[arm] and (tuning := plan.grid.tuning) is not None:
            arrow = "↑" if tuning.direction == "max" else "↓"
            count = len(tried_for(plan, arm))
            found.append(f"{arm}: {count} candidate runs, chosen by {tuning.metric} {arrow}")
        for link, reason in plan.absent[arm].items():
            found.append(f"{arm}: {link or 'all of it'}: n/a: {reason}")
    return found


def told(time: TimeEstimate, slots: int) -> str:
    """Return an estimate in a sentence."""
    known = time.finished + time.probed
    left = known + len(time.unknown)
    if not left:
        return "Time: all is done."
    parts = []
    if known:
        kinds = [
            f"{time.finished} by finished ones" if time.finished else "",
            f"{time.probed} by a probe, without evaluation" if time.probed else "",
        ]
        how = " and ".join(kind for kind in kinds if kind)
        side = f", {duration(time.seconds / slots)} with {slots} at a time" if slots > 1 else ""
        parts.append(f"about {duration(time.seconds)}{side}, for {known} of {left} runs ({how})")
    if time.unknown:
        parts.append(f"{len(time.unknown)} runs: run with --probe for an estimate")
    return f"Time: {'; '.join(parts)}."


def print_json(plan: Plan, stands: Mapping[str, State], time: TimeEstimate) -> None:
    """Print a plan and where its runs stand as JSON."""
    values = plan.as_json()
    for cell in values["cells"]:
        cell["state"] = stands[cell["name"]].value
    values["estimate"] = {
        "seconds": time.seconds,
        "by_finished": time.finished,
        "by_probe": time.probed,
        "unknown": [cell.name for cell in time.unknown],
    }
    print(json.dumps(values, indent=1, default=str))


def _arms(plan: Plan, stands: Mapping[str, State]) -> Table:
    made = Table(title=f"{len(plan.choices)} arms", title_justify="left")
    made.add_column("arm", no_wrap=True, overflow="ellipsis")
    for column in ("done", "trainable", "frozen", "FLOPs a sample"):
        made.add_column(column, justify="right", no_wrap=True)
    for arm in plan.choices:
        cells = [stands[cell.name] for cell in plan.cells if cell.arm == arm]
        sizes = plan.sizes[arm]
        numbers = (None,) * 3 if sizes is None else (sizes.trainable, sizes.frozen, sizes.flops)
        done = f"{cells.count(State.DONE)}/{len(cells)}" if cells else "n/a"
        made.add_row(arm, done, *map(number, numbers))
    return made


def number(value: int | None) -> str:
    """Return a count as ``1.30 M``; a dash for one that is not known."""
    if value is None:
        return "—"
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return str(value)
