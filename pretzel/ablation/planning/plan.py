"""The cells of a grid, parsed: what runs, after what, and what differs."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pretzel.ablation.gridfile.grid import Grid
from pretzel.ablation.gridfile.schema import Tuning
from pretzel.ablation.planning.size_matching import Matched
from pretzel.files.atomic import write_json


@runtime_checkable
class Exports(Protocol):
    """What the module of a stage must offer: its weights for the cells."""

    def export(self, path: Path) -> None:
        """Write the weights as safetensors."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a model costs.

    Attributes:
        trainable: Number of parameters that train.
        frozen: Number of those that do not.
        flops: FLOPs of a training step's forward on one sample; None where they are not known.
    """

    trainable: int
    frozen: int
    flops: int | None


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One of the configurations that a tuned cell chooses from.

    Attributes:
        run: Name of the run that tries it.
        label: What is tried, for example ``model.lr=0.01``.
        config: The resolved configuration of the cell with it.
    """

    run: str
    label: str
    config: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a tuned cell has chosen.

    Attributes:
        run: Name of the run that was best.
        label: What was best, for example ``model.lr=0.01``.
        config: The resolved configuration of the cell.
        note: That in a sentence.
    """

    run: str
    label: str
    config: dict[str, Any]
    note: str


@dataclass(frozen=True, kw_only=True, eq=False)
class PlannedRun:
    """One run of the grid.

    Attributes:
        name: ``arm/seed0``, ``stages/name`` or ``tuning/name``; its folder under the output.
        arm: The combination; the stage's name for a stage.
        seed: None for what is not compared: stages, which cells may share, and tuning runs.
        identity: Hash of what can change its weights; of a tuned cell, of all its candidates and
            of the rule by which it chooses.
        config: The resolved configuration of ``fit``, ready to run; that of the first candidate
            where there are any.
        record: What the hashes are made of, for people; of a tuned cell, that of its first
            candidate.
        evaluation: Hash of how it is measured; None if it is not.
        export: Whether its module exports weights after training (stages).
        tests: Whether it is tested after training (cells).
        needs: Names of the runs that must be done before: stages whose weights it starts from or
            uses, and the runs that try its candidates, which may also have failed.
        family: Equal for runs that take equally long: those that differ in their seeds.
        candidates: What it chooses from when those have run
            (:func:`pretzel.ablation.planning.tuning.chosen`).
        tuning: How it chooses.
    """

    name: str
    arm: str
    seed: int | None
    identity: str
    config: dict[str, Any]
    record: dict[str, Any]
    evaluation: str | None = None
    export: bool = False
    tests: bool = True
    needs: tuple[str, ...] = ()
    family: str = ""
    candidates: tuple[Candidate, ...] = ()
    tuning: Tuning | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All cells of a grid, parsed.

    Attributes:
        grid: The file.
        stages: Upstream runs and tuning runs, each before those that need it.
        cells: In the order in which they start.
        changes: What each combination changes against the baseline.
        choices: The arm of each axis, by combination.
        absent: Why a combination lacks links of the chain, by combination and link; one that
            lacks the last is not applicable and has no cells.
        sizes: What the model that is measured costs, by combination; None where it is not known.
        matched: What was solved for so that sizes are equal, by combination.
        tuned: The values that are chosen from, by combination and key.
    """

    grid: Grid
    stages: tuple[PlannedRun, ...]
    cells: tuple[PlannedRun, ...]
    changes: dict[str, list[str]]
    choices: dict[str, dict[str, str]]
    absent: dict[str, dict[str, str]]
    sizes: dict[str, Sizes | None]
    matched: dict[str, Matched]
    tuned: dict[str, dict[str, list[Any]]]

    @property
    def runs(self) -> tuple[PlannedRun, ...]:
        """Every run, in the order in which they may start: each stage before its first cell."""
        by_name = {stage.name: stage for stage in self.stages}
        ordered: dict[str, PlannedRun] = {}

        def add(cell: PlannedRun) -> None:
            for name in cell.needs:
                add(by_name[name])
            ordered.setdefault(cell.name, cell)

        for cell in self.cells:
            add(cell)
        return tuple(ordered.values())

    def save(self) -> None:
        """Write what the light commands need to ``plan.json`` in the output folder."""
        write_json(self.grid.output / "plan.json", self.as_json())

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
            "arms": {name: self._arm_as_json(name) for name in self.choices},
            "cells": [
                {
                    "name": cell.name,
                    "arm": cell.arm,
                    "seed": cell.seed,
                    "identity": cell.identity,
                    "evaluation": cell.evaluation,
                    "needs": list(cell.needs),
                    "candidates": {one.run: one.label for one in cell.candidates},
                }
                for cell in self.runs
            ],
        }

    def _arm_as_json(self, name: str) -> dict[str, Any]:
        sizes, matched = self.sizes[name], self.matched.get(name)
        counted = None if sizes is None else {"trainable": sizes.trainable, "frozen": sizes.frozen}
        return {
            "choices": self.choices[name],
            "changes": self.changes[name],
            "absent": self.absent[name],
            "parameters": counted,
            "flops": None if sizes is None else sizes.flops,
            "matched": None if matched is None else asdict(matched),
            "tuned": self.tuned.get(name, {}),
        }
