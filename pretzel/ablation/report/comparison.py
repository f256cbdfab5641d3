"""The runs of a grid with their results, read from its folder: ``plan.json`` and the ledger."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pretzel.ablation.gridfile.grid import Metric
from pretzel.ablation.ledger import RunFolder, State
from pretzel.ablation.report.tuning import ArmTuning, state_and_result, tunings, upstream
from pretzel.errors import UserError
from pretzel.files.atomic import read_json


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One of the compared runs: an arm at a seed.

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
    """All compared runs of a grid's output folder.

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
        tunings: What was tried for an arm and what was chosen, by arm; empty where nothing was.
        has_stages: Whether compared runs start from runs that they share.
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
    tunings: dict[str, tuple[ArmTuning, ...]]
    has_stages: bool
    runs: tuple[RunResult, ...]

    @cached_property
    def by_arm(self) -> dict[str, tuple[RunResult, ...]]:
        """The runs of each arm; an arm that does not exist for this question has none."""
        return {arm: tuple(run for run in self.runs if run.arm == arm) for arm in self.arms}

    def done(self, arm: str) -> Iterator[RunResult]:
        """Yield the finished runs of an arm."""
        return (run for run in self.by_arm[arm] if run.state is State.DONE)

    def values(self, arm: str, metric: str) -> dict[int, float]:
        """Return a metric by seed, over the finished runs of an arm that have it."""
        return {run.seed: run.metrics[metric] for run in self.done(arm) if metric in run.metrics}

    def differences(self, arm: str, metric: str) -> dict[int, float]:
        """Return the differences to the baseline, over the seeds that both have."""
        own, base = self.values(arm, metric), self.values(self.baseline, metric)
        return {seed: own[seed] - base[seed] for seed in sorted(own.keys() & base.keys())}

    def folder(self, run: RunResult) -> RunFolder:
        """Return the folder of a run."""
        return RunFolder(path=self.output / run.name)


def load(output: str | Path) -> Comparison:
    """Read a grid's output folder.

    Raises:
        UserError: If no grid has been run there.
    """
    output = Path(output)
    plan = read_json(output / "plan.json")
    if plan is None:
        raise UserError(f"{output}: no plan.json there; name the output folder of a grid that ran")
    planned = {run["name"]: run for run in plan["cells"]}
    compared = [run for run in plan["cells"] if run["seed"] is not None]  # no stage, no candidate
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
        tunings=tunings(output, plan),
        has_stages=any(upstream(run, planned) for run in compared),
        runs=tuple(_read(output, run, planned) for run in compared),
    )


def _read(output: Path, run: dict[str, Any], planned: dict[str, dict[str, Any]]) -> RunResult:
    folder = RunFolder(path=output / run["name"])
    state, result = state_and_result(output, run)
    if state is not State.DONE:
        result = {}
    stages = {name: RunFolder(path=output / name) for name in upstream(run, planned)}
    in_stages = sum((stage.result or {}).get("train_seconds", 0.0) for stage in stages.values())
    size = result.get("parameters", {})
    trouble = _trouble(folder, state)
    if not trouble and state is not State.DONE:
        for name, stage in stages.items():
            if state_and_result(output, planned[name])[0] is State.FAILED:
                trouble = f"needs {name}, which failed: {_trouble(stage, State.FAILED)}"
        candidates = {state_and_result(output, planned[n])[0] for n in run.get("candidates") or {}}
        if not trouble and candidates == {State.FAILED}:
            trouble = f"all {len(run['candidates'])} candidates of its tuning failed"
    return RunResult(
        name=run["name"],
        arm=run["arm"],
        seed=run["seed"],
        state=state,
        metrics={name: float(value) for name, value in result.get("metrics", {}).items()},
        facts=result.get("facts", {}),
        trainable=size.get("trainable", 0),
        frozen=size.get("frozen", 0),
        train_seconds=float(result.get("train_seconds", 0.0) + in_stages),
        step_seconds=None if (step := result.get("step_seconds")) is None else float(step),
        peak_memory_bytes=result.get("peak_memory_bytes"),
        versions=result.get("versions", {}),
        trouble=trouble,
        adopted=_adopted(folder, run) if state is State.DONE else "",
    )


def _trouble(folder: RunFolder, state: State) -> str:
    """Return in one line why a run is not done."""
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


def _adopted(folder: RunFolder, run: dict[str, Any]) -> str:
    """Return in one line what was accepted so that the run counts as done."""
    result = folder.result or {}
    finished = [result.get("identity"), result.get("evaluation")]
    planned = [run["identity"], run.get("evaluation")]
    if finished[0] == planned[0] and planned[1] in (None, finished[1]):
        return ""
    accepted = folder.acceptance(finished, planned)
    if accepted is None:
        return ""
    differences = "; ".join(map(str, accepted.get("differences", [])))
    because = accepted.get("because")
    return (differences or "differences not recorded") + (f" ({because})" if because else "")
