"""What the cells of a grid have found, read from its folder: ``plan.json`` and the ledger."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pretzel.ablation.gridfile.grid import Metric
from pretzel.ablation.ledger import RunFolder, State
from pretzel.ablation.report.tuning import ArmTuning, before, tuned
from pretzel.errors import UserError
from pretzel.files.atomic import read_json


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One cell as the report needs it.

    Attributes:
        name: Its folder under the grid's.
        arm: The combination.
        seed: Its seed.
        state: Where it stands.
        metrics: What it has logged; empty where it is not done.
        facts: What a metric was computed from, such as ``n``, ``extractor``, ``resize``, by metric.
        trainable: Number of parameters.
        frozen: Number of parameters.
        train_seconds: Of its training and of the stages that it starts from, without candidates.
        step_seconds: Of one training step; None where it was not recorded.
        peak_memory_bytes: Largest memory; None where it was not recorded.
        versions: Of the libraries that trained it, where they were recorded.
        trouble: Why it is not done, in one line; empty where it is.
        adopted: What the user has accepted although it differs, in one line; mostly empty.
    """

    name: str
    arm: str
    seed: int
    state: State
    metrics: dict[str, float]
    facts: dict[str, dict[str, Any]]
    trainable: int
    frozen: int
    train_seconds: float
    step_seconds: float | None
    peak_memory_bytes: int | None
    versions: dict[str, str]
    trouble: str
    adopted: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All cells of a grid's output folder.

    Attributes:
        output: The folder.
        grid: The grid's file, as the user named it.
        baseline: Name of the baseline arm.
        arms: Name of each arm, the baseline first, and what it changes.
        choices: The arm on each axis, by arm.
        axes: The names of the arms on each axis.
        metrics: Columns.
        seeds: Seeds of the grid.
        absent: Why an arm lacks links of the chain, by arm and link.
        tuned: What was tried for an arm and what was chosen, by arm; empty where nothing was.
        has_stages: Whether cells start from runs that they share.
        runs: One for each arm and seed, done or not.
    """

    output: Path
    grid: str
    baseline: str
    arms: dict[str, list[str]]
    choices: dict[str, dict[str, str]]
    axes: dict[str, list[str]]
    metrics: tuple[Metric, ...]
    seeds: tuple[int, ...]
    absent: dict[str, dict[str, str]]
    tuned: dict[str, tuple[ArmTuning, ...]]
    has_stages: bool
    runs: tuple[RunResult, ...]

    @cached_property
    def by_arm(self) -> dict[str, tuple[RunResult, ...]]:
        """The cells of each arm; an arm that does not exist for this question has none."""
        cells: dict[str, list[RunResult]] = {arm: [] for arm in self.arms}
        for cell in self.runs:
            cells[cell.arm].append(cell)
        return {arm: tuple(own) for arm, own in cells.items()}

    def done(self, arm: str) -> Iterator[RunResult]:
        """Yield the finished cells of an arm."""
        return (cell for cell in self.by_arm[arm] if cell.state is State.DONE)

    def values(self, arm: str, metric: str) -> dict[int, float]:
        """Return a metric by seed, over the finished cells of an arm that have it."""
        return {
            cell.seed: cell.metrics[metric] for cell in self.done(arm) if metric in cell.metrics
        }

    def differences(self, arm: str, metric: str) -> dict[int, float]:
        """Return the differences to the baseline, over the seeds that both have."""
        own, base = self.values(arm, metric), self.values(self.baseline, metric)
        return {seed: own[seed] - base[seed] for seed in sorted(own.keys() & base.keys())}

    def folder(self, cell: RunResult) -> RunFolder:
        """Return the folder of a cell."""
        return RunFolder(path=self.output / cell.name)


def load(output: str | Path) -> Comparison:
    """Read a grid's output folder.

    Raises:
        UserError: If no grid has been run there.
    """
    output = Path(output)
    plan = read_json(output / "plan.json")
    if plan is None:
        raise UserError(f"{output}: no plan.json there; name the output folder of a grid that ran")
    runs = {cell["name"]: cell for cell in plan["cells"]}
    arms = plan["arms"]
    return Comparison(
        output=output,
        grid=plan.get("grid", ""),
        baseline=plan["baseline"],
        arms={name: arm["changes"] for name, arm in arms.items()},
        choices={name: arm["choices"] for name, arm in arms.items()},
        axes=plan["axes"],
        metrics=tuple(Metric(name=n, direction=d) for n, d in plan["metrics"].items()),
        seeds=tuple(plan["seeds"]),
        absent={name: arm.get("absent", {}) for name, arm in arms.items()},
        tuned=tuned(output, plan),
        has_stages=any(c["seed"] is not None and before(c, runs) for c in runs.values()),
        runs=tuple(_cell(output, c, runs) for c in runs.values() if c["seed"] is not None),
    )


def _cell(output: Path, cell: dict[str, Any], runs: dict[str, dict[str, Any]]) -> RunResult:
    folder = RunFolder(path=output / cell["name"])
    state = _state(output, cell)
    result = folder.result or {} if state is State.DONE else {}
    upstream = {name: RunFolder(path=output / name) for name in before(cell, runs)}
    shared = sum((f.result or {}).get("train_seconds", 0.0) for f in upstream.values())
    size = result.get("parameters", {})
    trouble = _trouble(folder, state)
    if not trouble and state is not State.DONE:
        for name, other in upstream.items():
            if _state(output, runs[name]) is State.FAILED:
                trouble = f"needs {name}, which failed: {_trouble(other, State.FAILED)}"
        tried = [runs[name] for name in cell.get("candidates") or {}]
        if not trouble and tried and all(_state(output, c) is State.FAILED for c in tried):
            trouble = f"all {len(tried)} candidates of its tuning failed"
    return RunResult(
        name=cell["name"],
        arm=cell["arm"],
        seed=cell["seed"],
        state=state,
        metrics={name: float(value) for name, value in result.get("metrics", {}).items()},
        facts=result.get("facts", {}),
        trainable=size.get("trainable", 0),
        frozen=size.get("frozen", 0),
        train_seconds=float(result.get("train_seconds", 0.0) + shared),
        step_seconds=None if (step := result.get("step_seconds")) is None else float(step),
        peak_memory_bytes=result.get("peak_memory_bytes"),
        versions=result.get("versions", {}),
        trouble=trouble,
        adopted=_adopted(folder, cell) if state is State.DONE else "",
    )


def _state(output: Path, run: dict[str, Any]) -> State:
    return RunFolder(path=output / run["name"]).state(run["identity"], run.get("evaluation"))


def _trouble(folder: RunFolder, state: State) -> str:
    """Return in one line why a cell is not done."""
    if state is State.FAILED:
        lines = str((folder.failure or {}).get("error", "")).strip().splitlines()
        return lines[0] if lines else "no reason was recorded"
    if state is State.STALE:
        return "finished with another configuration"
    if state is State.TRAINED:
        return "trained, and not yet measured as is asked for now"
    step, total = folder.progress.get("step"), folder.progress.get("total")
    if state in (State.RUNNING, State.INTERRUPTED) and step is not None:
        return f"at step {step} of {total or '?'}"
    return ""


def _adopted(folder: RunFolder, cell: dict[str, Any]) -> str:
    """Return in one line what was accepted so that the cell counts as done."""
    result = folder.result or {}
    has = [result.get("identity"), result.get("evaluation")]
    asked = [cell["identity"], cell.get("evaluation")]
    if has[0] == asked[0] and asked[1] in (None, has[1]):
        return ""
    accepted = folder.acceptance(has, asked)
    if accepted is None:
        return ""
    told = "; ".join(map(str, accepted.get("differences", []))) or "differences not recorded"
    because = accepted.get("because")
    return f"{told} ({because})" if because else told
