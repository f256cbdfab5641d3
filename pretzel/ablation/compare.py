"""The table of a grid: mean and interval over seeds, paired difference to the baseline."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from pretzel.ablation.grid import Metric
from pretzel.ablation.ledger import CellFolder, State, read_json, write_text
from pretzel.ablation.suggest import did_you_mean
from pretzel.ablation.view import duration
from pretzel.errors import UserError

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean: The mean; NaN values are not hidden.
        half_width: Half of the two-sided 95 % t interval; None for a single seed.
        n: Number of seeds.
    """

    mean: float
    half_width: float | None
    n: int


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """One cell as the table needs it."""

    arm: str
    seed: int
    state: State
    metrics: dict[str, float]
    trainable: int
    frozen: int
    train_seconds: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All cells of a grid's output folder.

    Attributes:
        output: The folder.
        baseline: Name of the baseline arm.
        arms: Name of each arm, the baseline first, and what it changes.
        choices: The arm on each axis, by arm.
        axes: The names of the arms on each axis.
        metrics: Columns.
        seeds: Seeds of the grid.
        absent: Why an arm lacks links of the chain, by arm and link.
        has_stages: Whether cells start from runs that they share.
        cells: One for each arm and seed, done or not.
    """

    output: Path
    baseline: str
    arms: dict[str, list[str]]
    choices: dict[str, dict[str, str]]
    axes: dict[str, list[str]]
    metrics: tuple[Metric, ...]
    seeds: tuple[int, ...]
    absent: dict[str, dict[str, str]]
    has_stages: bool
    cells: tuple[CellResult, ...]

    def values(self, arm: str, metric: str) -> dict[int, float]:
        """Return a metric by seed, over the finished cells of an arm that have it."""
        return {
            cell.seed: cell.metrics[metric]
            for cell in self.cells
            if cell.arm == arm and cell.state is State.DONE and metric in cell.metrics
        }

    def difference(self, arm: str, metric: str) -> Estimate | None:
        """Return the mean paired difference to the baseline, over the seeds that both have."""
        own, base = self.values(arm, metric), self.values(self.baseline, metric)
        return estimate([own[seed] - base[seed] for seed in sorted(own.keys() & base.keys())])


def estimate(values: Sequence[float]) -> Estimate | None:
    """Return mean and t interval; None without values.

    The interval is mean ± t_{0.975, n-1} s / sqrt(n), with s the sample standard deviation.
    """
    if not values:
        return None
    data = np.asarray(values, dtype=np.float64)
    n = len(data)
    half = None
    if n > 1:
        t = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1))
        with np.errstate(invalid="ignore"):  # a diverged seed makes it NaN, and it is shown so
            half = t * float(data.std(ddof=1)) / math.sqrt(n)
    return Estimate(mean=float(data.mean()), half_width=half, n=n)


def load(output: str | Path) -> Comparison:
    """Read a grid's output folder.

    Raises:
        UserError: If no grid has been run there.
    """
    output = Path(output)
    plan = read_json(output / "plan.json")
    if plan is None:
        raise UserError(f"{output}: no plan.json there; name the output folder of a grid that ran")
    needs = {cell["name"]: cell.get("needs", []) for cell in plan["cells"]}
    cells = tuple(_cell(output, cell, needs) for cell in plan["cells"] if cell["seed"] is not None)
    return Comparison(
        output=output,
        baseline=plan["baseline"],
        arms={name: arm["changes"] for name, arm in plan["arms"].items()},
        choices={name: arm["choices"] for name, arm in plan["arms"].items()},
        axes=plan["axes"],
        metrics=tuple(Metric(name=n, direction=d) for n, d in plan["metrics"].items()),
        seeds=tuple(plan["seeds"]),
        absent={name: arm.get("absent", {}) for name, arm in plan["arms"].items()},
        has_stages=any(needs.values()),
        cells=cells,
    )


def _cell(output: Path, cell: dict[str, Any], needs: dict[str, list[str]]) -> CellResult:
    folder = CellFolder(path=output / cell["name"])
    result = folder.result or {}
    chain = [cell["name"]]
    for name in chain:  # grows while it is read
        chain += [other for other in needs[name] if other not in chain]
    seconds = [
        (CellFolder(path=output / name).result or {}).get("train_seconds", 0.0) for name in chain
    ]
    size = result.get("parameters", {})
    return CellResult(
        arm=cell["arm"],
        seed=cell["seed"],
        state=folder.state(cell["identity"]),
        metrics=result.get("metrics", {}),
        trainable=size.get("trainable", 0),
        frozen=size.get("frozen", 0),
        train_seconds=sum(seconds),
    )


def markdown(comparison: Comparison) -> str:
    """Return the table in Markdown, with what is missing and what the arms change below it."""
    c = comparison
    heads = ["arm", "n"]
    for metric in c.metrics:
        heads += [f"{metric.name} {metric.arrow}", "Δ to baseline"]
    lines = [_line([*heads, "parameters", "train time"]), _line(["---"] * (len(heads) + 2))]
    for arm in c.arms:
        cells = [cell for cell in c.cells if cell.arm == arm]
        done = [cell for cell in cells if cell.state is State.DONE]
        name = f"**{arm}** (baseline)" if arm == c.baseline else arm
        counted = str(len(done)) if len(done) == len(cells) else _missing(cells, len(done))
        row = [name, counted if cells else "n/a"]
        for metric in c.metrics:
            own = estimate(list(c.values(arm, metric.name).values()))
            absent = "n/a" if done or not cells else "—"
            row.append(_shown(own, len(done)) if own else absent)
            if arm == c.baseline:
                row.append("")
            else:
                change = c.difference(arm, metric.name)
                row.append(_shown(change, len(done), signed=True) if change else absent)
        row += [_parameters(done), _time(done)]
        lines.append(_line(row))
    notes = [
        f"Mean ± half of the {CONFIDENCE:.0%} t interval over n seeds; Δ is the mean of the "
        "differences at the same seed, with its own interval. ↑ more is better, ↓ less is better."
    ]
    if c.has_stages:
        notes.append("Train time counts the stages that a cell starts from, also shared ones.")
    for arm, reasons in c.absent.items():
        notes += [f"n/a: {arm}{link and f', {link}'}: {why}" for link, why in reasons.items()]
    for cell in c.cells:
        if cell.state is not State.DONE:
            notes.append(f"Not in the table: {cell.arm}/seed{cell.seed} ({cell.state.value}).")
    notes += _unlogged(c)
    changed = [f"- {arm}: {'; '.join(changes)}" for arm, changes in c.arms.items() if changes]
    return "\n".join([*lines, "", *notes, "", "Against the baseline:", "", *changed, ""])


def write(comparison: Comparison) -> str:
    """Write ``compare.md`` into the grid's folder and return its text."""
    text = markdown(comparison)
    write_text(comparison.output / "compare.md", text)
    return text


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _missing(cells: list[CellResult], done: int) -> str:
    states = [cell.state for cell in cells if cell.state is not State.DONE]
    told = ", ".join(f"{states.count(state)} {state.value}" for state in dict.fromkeys(states))
    return f"{done} of {len(cells)} ({told})"


def _shown(estimate: Estimate, expected: int, *, signed: bool = False) -> str:
    """Return ``0.813 ± 0.021``, with as many decimals as its size deserves."""
    half, sign = estimate.half_width, "+" if signed else ""
    scale = max(abs(estimate.mean), half or 0.0)
    if not scale < 1e5:  # diverged, or not a number
        text = f"{estimate.mean:{sign}.3g}" + ("" if half is None else f" ± {half:.3g}")
    else:
        digits = 3 if scale < 10 else 1 if scale < 1000 else 0
        if 0 < scale < 1e-2:
            digits = 2 - math.floor(math.log10(scale))
        text = f"{estimate.mean:{sign}.{digits}f}"
        text += "" if half is None else f" ± {half:.{digits}f}"
    return text if estimate.n == expected else f"{text} (n={estimate.n})"


def _parameters(done: list[CellResult]) -> str:
    if not done:
        return "—"
    frozen = f" + {_count(done[0].frozen)} frozen" if done[0].frozen else ""
    return f"{_count(done[0].trainable)}{frozen}"


def _count(number: int) -> str:
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.2f} {letter}"
    return str(number)


def _time(done: list[CellResult]) -> str:
    return duration(sum(cell.train_seconds for cell in done) / len(done)) if done else "—"


def _unlogged(comparison: Comparison) -> list[str]:
    """Say which metrics no cell has, and what was meant: a typo must not look like n/a."""
    done = [cell for cell in comparison.cells if cell.state is State.DONE]
    logged = {name for cell in done for name in cell.metrics}
    return [
        f"No cell logged {metric.name}{did_you_mean(metric.name, logged)}"
        for metric in comparison.metrics
        if done and metric.name not in logged
    ]
