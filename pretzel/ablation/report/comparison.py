"""The runs of a grid with their results, read from its folder: ``plan.json`` and the ledger."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pretzel.ablation.gridfile.grid import Metric
from pretzel.ablation.ledger import RunFolder, State
from pretzel.ablation.plan_file import read_plan
from pretzel.ablation.report.tuning import ArmTuning, state_and_result, tunings, upstream
from pretzel.ablation.twins import Traces, twin_sentences
from pretzel.errors import UserError


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One of the compared runs: an arm at a seed; figures are there where it is done."""

    name: str  # its folder under the grid's
    arm: str
    seed: int
    state: State
    metrics: dict[str, float]
    facts: dict[str, dict[str, Any]]  # behind a metric, such as n, extractor, resize; by metric
    trainable_parameters: int
    frozen_parameters: int
    train_seconds: float  # with the stages that it starts from, without candidates
    step_seconds: float | None  # None where it was not recorded, as below
    peak_memory_bytes: int | None
    samples: dict[str, Any] | None  # hash and number of the results of single items, if kept
    versions: dict[str, str]  # of the libraries that trained it
    trouble: str  # why it is not done, in one line
    adopted: str  # what the user has accepted although it differs, in one line; mostly empty
    fault: str  # what is wrong with the file of its results, in a clause; mostly empty


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All compared runs of a grid's output folder."""

    output: Path
    grid: str  # the grid's file, as the user named it
    baseline: str
    arms: dict[str, list[str]]  # each arm, the baseline first, and what it changes
    choices: dict[str, dict[str, str]]  # the choice on each axis, by arm
    axes: dict[str, list[str]]  # the choices of each axis
    metrics: tuple[Metric, ...]
    seeds: tuple[int, ...]
    absent: dict[str, dict[str, str]]  # why an arm lacks links of the chain, by arm and link
    tunings: dict[str, tuple[ArmTuning, ...]]  # by arm, those without any left out
    has_stages: bool  # whether compared runs start from runs that they share
    runs: tuple[RunResult, ...]  # one for each arm and seed, done or not
    twins: tuple[str, ...]  # which runs train or measure the same thing, stages among them

    @cached_property
    def by_arm(self) -> dict[str, tuple[RunResult, ...]]:
        """The runs of each arm; an arm that does not exist for this question has none."""
        return {arm: tuple(run for run in self.runs if run.arm == arm) for arm in self.arms}

    def done(self, arm: str) -> list[RunResult]:
        """Return the finished runs of an arm."""
        return [run for run in self.by_arm[arm] if run.state is State.DONE]

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
    plan = read_plan(output)
    if plan is None:
        raise UserError(f"{output}: no plan.json there; name the output folder of a grid that ran")
    planned = {run["name"]: run for run in plan["runs"]}
    compared = [run for run in plan["runs"] if run["seed"] is not None]  # no stage, no candidate
    arms = plan["arms"]
    folders = {name: RunFolder(path=output / name) for name in planned}
    traces = {
        name: Traces.read(folders[name], state_and_result(output, run)[0], run["identity"])
        for name, run in planned.items()
    }
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
        twins=tuple(twin_sentences(plan, traces)),
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
        trainable_parameters=size.get("trainable", 0),
        frozen_parameters=size.get("frozen", 0),
        train_seconds=float(result.get("train_seconds", 0.0) + in_stages),
        step_seconds=result.get("step_seconds"),
        peak_memory_bytes=result.get("peak_memory_bytes"),
        samples=result.get("samples"),
        versions=result.get("versions", {}),
        trouble=trouble,
        adopted=_adopted(folder, run) if state is State.DONE else "",
        fault=folder.result_fault,
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
