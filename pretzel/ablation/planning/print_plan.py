"""Output of ``pretzel grid plan``: runs, arms, their sizes and changes, and the time it takes."""

import json
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from pretzel.ablation.ledger import State
from pretzel.ablation.planning.parsed_chains import Chain
from pretzel.ablation.planning.plan import Plan
from pretzel.ablation.planning.time_estimate import TimeEstimate
from pretzel.ablation.planning.tuning import candidate_runs
from pretzel.ablation.status_table import StateTable, StatusRow, duration, plan_title, twins


def print_plan(plan: Plan, states: Mapping[str, State], time: TimeEstimate, slots: int) -> None:
    """Print a plan, the states of its runs by name, and the time it takes with slots to run in."""
    console, output, values = Console(), plan.grid.output, plan.as_json()
    rows = StatusRow.of_plan(output, values)
    console.print(StateTable(rows, plan_title(output, values), remarks=twins(values, rows)))
    console.print(_arms_table(plan, states))
    for line in (*arm_lines(plan), *plan.warnings, time_line(time, slots)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def print_plan_json(plan: Plan, states: Mapping[str, State], time: TimeEstimate) -> None:
    """Print a plan and the states of its runs as JSON."""
    values = plan.as_json()
    for run in values["runs"]:
        run["state"] = states[run["name"]].value
    values["estimate"] = {
        "seconds": time.seconds,
        "by_finished": time.finished,
        "by_probe": time.probed,
        "unknown": [run.name for run in time.unknown],
    }
    print(json.dumps(values, indent=1, default=str))


def arm_lines(plan: Plan) -> list[str]:
    """Return lines of what each arm changes against the baseline, and what it lacks."""
    lines = []
    for name, arm in plan.arms.items():
        is_baseline = name == plan.grid.baseline_name
        lines.append(f"{name}: {'the baseline' if is_baseline else '; '.join(arm.changes)}")
        lines += [f"{name}: {line}" for line in counted_lines(arm) if is_baseline]
        for key, values in arm.tuned.items():
            lines.append(f"{name}: {key}: tuned over {len(values)} values before the comparison")
        if arm.tuned and (tuning := plan.grid.tuning) is not None:
            arrow = "↑" if tuning.direction == "max" else "↓"
            count = len(candidate_runs(plan, name))
            lines.append(f"{name}: {count} candidate runs, chosen by {tuning.metric} {arrow}")
        trainers = {run.trained_by for run in plan.compared if run.arm == name} - {None}
        for trainer in sorted({str(one).rpartition("/")[0] for one in trainers}):
            lines.append(f"{name}: shares the training of {trainer}")
        for link, reason in arm.absent.items():
            lines.append(f"{name}: {link or 'all of it'}: n/a: {reason}")
    return lines


def counted_lines(arm: Chain) -> list[str]:
    """Return what a training step counts, a line for each link."""
    lines = []
    for link, counted in arm.counted.items():
        numbers = ", ".join(f"{number:.3g} {kind}" for kind, number in counted.items())
        if numbers:
            lines.append(f"{link and f'{link}: '}a step of a process counts about {numbers}")
    return lines


def time_line(time: TimeEstimate, slots: int) -> str:
    """Return an estimate of time in a sentence."""
    kinds = {"by finished ones": time.finished, "by a probe, without evaluation": time.probed}
    num_known = sum(kinds.values())
    num_left = num_known + len(time.unknown)
    if not num_left:
        return "Time: all is done."
    parts = []
    if num_known:
        how = " and ".join(f"{count} {kind}" for kind, count in kinds.items() if count)
        side = f", {duration(time.seconds / slots)} with {slots} at a time" if slots > 1 else ""
        total = duration(time.seconds)
        parts.append(f"about {total}{side}, for {num_known} of {num_left} runs ({how})")
    if time.unknown:
        parts.append(f"{len(time.unknown)} runs: run with --probe for an estimate")
    return f"Time: {'; '.join(parts)}."


def _arms_table(plan: Plan, states: Mapping[str, State]) -> Table:
    table = Table(title=f"{len(plan.arms)} arms", title_justify="left")
    table.add_column("arm", no_wrap=True, overflow="ellipsis")
    for column in ("done", "trainable", "frozen", "FLOPs a sample"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, arm in plan.arms.items():
        own = [states[run.name] for run in plan.compared if run.arm == name]
        done = f"{own.count(State.DONE)}/{len(own)}" if own else "n/a"
        model = arm.model
        counts = (None,) * 3 if model is None else (model.trainable, model.frozen, model.flops)
        table.add_row(name, done, *map(short_count, counts))
    return table


def short_count(value: int | None) -> str:
    """Return a count as ``1.30 M``; a dash for one that is not known."""
    if value is None:
        return "—"
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return str(value)
