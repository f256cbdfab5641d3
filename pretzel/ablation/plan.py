"""The cells of a grid, parsed: what runs, after what, and what differs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pretzel.ablation.grid import Grid
from pretzel.ablation.ledger import write_json


@runtime_checkable
class Exports(Protocol):
    """What the module of a stage must offer: its weights for the cells."""

    def export(self, path: Path) -> None:
        """Write the weights as safetensors."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """One run of the grid.

    Attributes:
        name: ``arm/seed0`` or ``stages/name``; its folder under the output.
        arm: The combination; the stage's name for a stage.
        seed: None for a stage, whose own configuration seeds it or which cells may share.
        identity: Hash of what can change its result.
        config: The resolved configuration of ``fit``, ready to run.
        export: Whether its module exports weights after training (stages).
        needs: Names of the stages whose weights it starts from or uses.
    """

    name: str
    arm: str
    seed: int | None
    identity: str
    config: dict[str, Any]
    export: bool = False
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All cells of a grid, parsed.

    Attributes:
        grid: The file.
        stages: Upstream runs, each before those that need it.
        cells: In the order in which they start.
        changes: What each combination changes against the baseline.
        choices: The arm of each axis, by combination.
        absent: Why a combination lacks links of the chain, by combination and link; one that
            lacks the last is not applicable and has no cells.
    """

    grid: Grid
    stages: tuple[Cell, ...]
    cells: tuple[Cell, ...]
    changes: dict[str, list[str]]
    choices: dict[str, dict[str, str]]
    absent: dict[str, dict[str, str]]

    @property
    def runs(self) -> tuple[Cell, ...]:
        """Every run, in the order in which they may start: each stage before its first cell."""
        by_name = {stage.name: stage for stage in self.stages}
        ordered: dict[str, Cell] = {}

        def add(cell: Cell) -> None:
            for name in cell.needs:
                add(by_name[name])
            ordered.setdefault(cell.name, cell)

        for cell in self.cells:
            add(cell)
        return tuple(ordered.values())

    def save(self) -> None:
        """Write what the light commands need to ``plan.json`` in the output folder."""
        grid = self.grid
        write_json(
            grid.output / "plan.json",
            {
                "grid": str(grid.file),
                "baseline": grid.baseline_name,
                "axes": {axis.name: [arm.name for arm in axis.arms] for axis in grid.axes},
                "metrics": {metric.name: metric.direction for metric in grid.metrics},
                "seeds": list(grid.seeds),
                "arms": {
                    name: {
                        "choices": self.choices[name],
                        "changes": self.changes[name],
                        "absent": self.absent[name],
                    }
                    for name in self.choices
                },
                "cells": [
                    {
                        "name": c.name,
                        "arm": c.arm,
                        "seed": c.seed,
                        "identity": c.identity,
                        "needs": list(c.needs),
                    }
                    for c in self.runs
                ],
            },
        )
