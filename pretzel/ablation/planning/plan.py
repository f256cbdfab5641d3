"""The plan of a grid: its parsed runs, what each needs, and how the arms differ."""

import json
from dataclasses import dataclass
from typing import Any

from pretzel.ablation.gridfile.grid import Grid
from pretzel.ablation.gridfile.schema import Tuning
from pretzel.ablation.ledger import RunFolder, State
from pretzel.ablation.plan_file import PLAN
from pretzel.ablation.planning.parsed_chains import Chain
from pretzel.files.atomic import write_json


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One of the configurations that a tuned run chooses from, and the run that tries it.

    Its label names the values that are tried, for example ``model.lr=0.01``.
    """

    run: str
    label: str
    config: dict[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class PlannedRun:
    """One run of the grid: a compared one (an arm at one seed), or one that others need.

    Attributes:
        name: ``arm/seed0``, ``stages/name`` or ``tuning/name``; its folder under the output.
        arm: The combination; the stage's name for a stage.
        seed: None for runs that are not compared: stages, which others may share, and tuning runs.
        identity: Hash of everything that can change its weights; of a tuned run, of all its
            candidates and of the rule by which it chooses.
        config: The resolved configuration of ``fit``, ready to run (of the first candidate).
        record: The values behind the hashes, for people (of the first candidate).
        evaluation: Hash of how it is measured; None if it is not.
        export: Whether its module exports weights after training (stages).
        needs: Names of the runs that must be done before: stages whose weights it starts from or
            uses, and the runs that try its candidates, which may also have failed.
        family: Equal for runs that take equally long: those that differ in their seeds.
        candidates: The configurations it chooses from when those have run
            (:func:`pretzel.ablation.planning.tuning.best_candidate`).
        tuning: How it chooses.
        trained_by: Name of the run whose weights it measures in another way; None if it trains
            its own.
    """

    name: str
    arm: str
    seed: int | None
    identity: str
    config: dict[str, Any]
    record: dict[str, Any]
    evaluation: str | None = None
    export: bool = False
    needs: tuple[str, ...] = ()
    family: str = ""
    candidates: tuple[Candidate, ...] = ()
    tuning: Tuning | None = None
    trained_by: str | None = None

    @property
    def tests(self) -> bool:
        """Whether it is tested after training (compared runs)."""
        return self.seed is not None

    def as_json(self) -> dict[str, Any]:
        """Return it in plain values, without the configuration."""
        names = ("name", "arm", "seed", "identity", "evaluation", "trained_by")
        return {
            **{name: getattr(self, name) for name in names},
            "needs": list(self.needs),
            "candidates": {candidate.run: candidate.label for candidate in self.candidates},
        }


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All runs of a grid, parsed.

    Attributes:
        stages: Upstream runs and tuning runs, each before those that need it.
        compared: The compared runs, in the order in which they start.
        arms: The combinations of arms by name, the baseline first: rows of the table.
        files: Hashes of the configuration files, by path.
        warnings: Sentences on metrics that could not be checked.
    """

    grid: Grid
    stages: tuple[PlannedRun, ...]
    compared: tuple[PlannedRun, ...]
    arms: dict[str, Chain]
    files: dict[str, str]
    warnings: tuple[str, ...] = ()

    @property
    def runs(self) -> tuple[PlannedRun, ...]:
        """Every run, in an order in which they may start: each stage before those that need it."""
        by_name = {stage.name: stage for stage in self.stages}
        ordered: dict[str, PlannedRun] = {}

        def add(run: PlannedRun) -> None:
            for name in run.needs:
                add(by_name[name])
            ordered.setdefault(run.name, run)

        # in the order of the compared runs, so that the first do not wait for stages of the last
        for run in self.compared:
            add(run)
        return tuple(ordered.values())

    def folder(self, run: PlannedRun) -> RunFolder:
        """Return the folder of a run."""
        return RunFolder(path=self.grid.output / run.name)

    def state(self, run: PlannedRun) -> State:
        """Return the state of a run."""
        return self.folder(run).state(run.identity, run.evaluation)

    def save(self) -> None:
        """Write what the light commands need into the output folder."""
        write_json(self.grid.output / PLAN, self.record())

    def record(self) -> dict[str, Any]:
        """Return the plan in plain values, with hashes of the files and the code it is made of."""
        return self.as_json() | {"files": self.files, "code": self._code()}

    def _code(self) -> list[dict[str, Any]]:
        """Return the modules of runs with their hashes, each set of them once."""
        groups: dict[str, dict[str, Any]] = {}
        for run in self.runs:
            for key, role in (("modules", "trains"), ("measuring_modules", "measures")):
                modules = run.record.get(key, {})
                new = {"modules": modules, "trains": [], "measures": []}
                groups.setdefault(json.dumps(modules), new)[role].append(run.name)
        return list(groups.values())

    def as_json(self) -> dict[str, Any]:
        """Return the plan in plain values, without the configurations."""
        grid = self.grid
        return {
            "grid": str(grid.file),
            "baseline": grid.baseline_name,
            "axes": {axis.name: [arm.name for arm in axis.arms] for axis in grid.axes},
            "metrics": {metric.name: metric.direction for metric in grid.metrics},
            "seeds": list(grid.seeds),
            "match": None if grid.match is None else grid.match.model_dump(),
            "tuning": None if grid.tuning is None else grid.tuning.model_dump(),
            "arms": {name: arm.as_json() for name, arm in self.arms.items()},
            "runs": [run.as_json() for run in self.runs],
        }
