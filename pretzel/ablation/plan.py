"""Parse every cell with the real parser before anything trains; report all mistakes at once."""

import itertools
import re
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import Checkpoint

from pretzel.ablation.classes import import_name, subclasses
from pretzel.ablation.explain import parameters
from pretzel.ablation.grid import Combination, Grid, report
from pretzel.ablation.identity import changes, essence, identity
from pretzel.ablation.ledger import write_json
from pretzel.ablation.overlay import Config, at, fold, override, read
from pretzel.ablation.suggest import did_you_mean
from pretzel.ablation.yamlfile import Key, Source
from pretzel.cli import ParserOnly
from pretzel.errors import UserError

_STAGE = re.compile(r"\{stages\.([^{}]+)\}")
_SEED_KEYS: tuple[Key, ...] = (
    ("seed_everything",),
    ("model", "init_args", "seed"),
    ("data", "init_args", "seed"),
)


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
        seed: None for a stage, whose own configuration seeds it.
        identity: Hash of what can change its result.
        config: The resolved configuration of ``fit``, ready to run.
        export: Whether its module exports weights after training (stages).
    """

    name: str
    arm: str
    seed: int | None
    identity: str
    config: dict[str, Any]
    export: bool = False


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All cells of a grid, parsed.

    Attributes:
        grid: The file.
        stages: Upstream runs, in order.
        cells: In the order in which they start.
        changes: What each combination changes against the baseline.
        choices: The arm of each axis, by combination.
    """

    grid: Grid
    stages: tuple[Cell, ...]
    cells: tuple[Cell, ...]
    changes: dict[str, list[str]]
    choices: dict[str, dict[str, str]]

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
                    name: {"choices": self.choices[name], "changes": self.changes[name]}
                    for name in self.choices
                },
                "cells": [
                    {"name": c.name, "arm": c.arm, "seed": c.seed, "identity": c.identity}
                    for c in (*self.stages, *self.cells)
                ],
            },
        )


def make(grid: Grid) -> Plan:
    """Parse all cells of a grid and build their models without memory; nothing is written.

    Args:
        grid: From :func:`pretzel.ablation.grid.load`.

    Raises:
        UserError: With all mistakes of all cells in one report.
    """
    return _Planner(grid).plan()


@cache
def _parser() -> ParserOnly:
    return ParserOnly()  # half a second to build


@dataclass(kw_only=True)
class _Parsed:
    """One combination at the first seed."""

    resolved: dict[str, Any]
    essential: dict[str, Any]


@dataclass
class _Planner:
    grid: Grid
    parser: ParserOnly = field(default_factory=_parser)
    mistakes: list[str] = field(default_factory=list)
    weights: dict[str, str] = field(default_factory=dict)
    upstream: dict[str, str] = field(default_factory=dict)

    def plan(self) -> Plan:
        stages = self.stages()
        parsed: dict[str, _Parsed] = {}
        choices: dict[str, dict[str, str]] = {}
        combinations = list(self.grid.combinations())
        try:
            base = fold([read(file) for file in self.grid.base])
        except UserError as error:
            raise report([*self.mistakes, str(error)], self.grid.file) from error
        wrong: dict[str, list[str]] = {}
        for combination in combinations:
            choices[combination.name] = combination.choices
            try:
                parsed[combination.name] = self.parse(_with_arms(base, combination))
            except UserError as error:
                wrong.setdefault(str(error), []).append(combination.name)
        for message, names in wrong.items():
            # What every cell is refused for is no arm's mistake.
            every = len(names) == len(combinations) > 1
            self.mistakes += [message] if every else [f"{message} (cell {n})" for n in names]
        self.refuse_equal_arms(parsed)
        if self.mistakes:
            raise report(self.mistakes, self.grid.file)
        baseline = parsed[self.grid.baseline_name].essential
        return Plan(
            grid=self.grid,
            stages=tuple(stages),
            cells=tuple(self.cell(name, parsed[name], seed) for name, seed in self.order(parsed)),
            changes={name: changes(baseline, one.essential) for name, one in parsed.items()},
            choices=choices,
        )

    def order(self, arms: Iterable[str]) -> list[tuple[str, int]]:
        pairs = list(itertools.product(arms, self.grid.seeds))
        if self.grid.order == "seeds":
            pairs.sort(key=lambda pair: self.grid.seeds.index(pair[1]))
        return pairs

    def stages(self) -> list[Cell]:
        cells: list[Cell] = []
        for stage in self.grid.stages:
            path = self.grid.output / "stages" / stage.name
            try:
                config = fold([read(file) for file in stage.configs])
                parsed = self.parse(config, seeded=False)
                module = import_name(parsed.resolved["model"]["class_path"])
                if isinstance(module, type) and not issubclass(module, Exports):
                    raise UserError(
                        f"{config.source(('model',))}: model: {module.__name__} cannot be a stage: "
                        "it has no method export(path)"
                    )
            except UserError as error:
                self.mistakes.append(f"{error} (stage {stage.name})")
                identifier = "unknown"
            else:
                identifier = identity(parsed.essential)
                cells.append(
                    Cell(
                        name=f"stages/{stage.name}",
                        arm=stage.name,
                        seed=None,
                        identity=identifier,
                        config=_placed(parsed.resolved, path),
                        export=True,
                    )
                )
            # only now: a stage may name earlier stages, not itself
            self.weights[stage.name] = str(path / "weights.safetensors")
            self.upstream[self.weights[stage.name]] = f"stage {stage.name} {identifier}"
        return cells

    def parse(self, config: Config, *, seeded: bool = True) -> _Parsed:
        values = _substitute(config.values, self.weights, config)
        config = Config(values=values, sources=config.sources)
        if seeded:
            config = _seeded(config, self.grid.seeds[0])
        namespace = self.parser.parse("fit", config)
        resolved = self.parser.resolved("fit", namespace)
        self.try_to_build(self.before_stages(namespace, config))
        return _Parsed(resolved=resolved, essential=essence(resolved, self.upstream))

    def before_stages(self, namespace: Namespace, config: Config) -> Namespace | None:
        """Return what can be built before the stages have run: without their weights.

        None where a part takes no None in the place of a stage's weights.
        """
        paths = set(self.weights.values())
        values = _without(config.values, paths)
        if values == config.values:
            return namespace
        try:
            return self.parser.parse("fit", Config(values=values, sources=config.sources))
        except UserError:
            return None

    def try_to_build(self, namespace: Namespace | None) -> None:
        """Build the model without memory, so that what its constructors refuse is found now."""
        if namespace is None:
            return
        try:
            with torch.random.fork_rng(devices=[]), torch.device("meta"):
                self.parser.build_model("fit", namespace)
        except UserError:
            raise
        except (RuntimeError, NotImplementedError):
            return  # a part that cannot be built without memory is built when its cell runs

    def cell(self, arm: str, parsed: _Parsed, seed: int) -> Cell:
        resolved, essential = deepcopy(parsed.resolved), deepcopy(parsed.essential)
        for values in (resolved, essential):
            for *parents, last in _SEED_KEYS:
                node = at(values, tuple(parents)) if parents else values
                if isinstance(node, dict) and last in node:
                    node[last] = seed
        name = f"{arm}/seed{seed}"
        return Cell(
            name=name,
            arm=arm,
            seed=seed,
            identity=identity(essential),
            config=_placed(resolved, self.grid.output / name),
        )

    def refuse_equal_arms(self, parsed: dict[str, _Parsed]) -> None:
        """Refuse arms that come to the same configuration: they would only look like a result."""
        seen: dict[str, str] = {}
        for name, one in parsed.items():
            mark = identity(one.essential)
            if mark not in seen:
                seen[mark] = name
            elif seen[mark] == self.grid.baseline_name:
                self.mistakes.append(
                    f"{self.grid.file}: {name} changes nothing against the baseline {seen[mark]}"
                )
            else:
                self.mistakes.append(f"{self.grid.file}: {name} is the same as {seen[mark]}")


def _with_arms(base: Config, combination: Combination) -> Config:
    config = base
    for _, arm in combination.arms:
        for change in arm.overrides:
            config = override(config, change.key, change.value, change.source)
    return config


def _seeded(config: Config, seed: int) -> Config:
    """Give the seed to everything that takes one, so that arms share data and noise."""
    source = Source(name="seeds")
    config = override(config, "seed_everything", seed, source)
    for group, root in (("model", LightningModule), ("data", LightningDataModule)):
        name = at(config.values, (group, "class_path"))
        if not isinstance(name, str):
            continue
        if "." not in name:
            loaded = [c for c in subclasses(root) if c.__name__ == name]
            name = f"{loaded[0].__module__}.{loaded[0].__qualname__}" if loaded else name
        if "seed" in parameters(name):
            config = override(config, f"{group}.init_args.seed", seed, source)
    return config


def _substitute(node: Any, weights: dict[str, str], config: Config, path: Key = ()) -> Any:  # noqa: ANN401
    """Put the paths of stages' weights in the place of ``{stages.NAME}``."""
    if isinstance(node, dict):
        return {k: _substitute(v, weights, config, (*path, str(k))) for k, v in node.items()}
    if isinstance(node, list):
        return [_substitute(value, weights, config, path) for value in node]
    if not isinstance(node, str):
        return node
    for name in _STAGE.findall(node):
        if name not in weights:
            near = did_you_mean(name, weights)
            where = f"{config.source(path)}: {'.'.join(path)}"
            raise UserError(f"{where}: no such stage '{name}'{near}")
    return _STAGE.sub(lambda found: weights[found[1]], node)


def _without(node: Any, paths: set[str]) -> Any:  # noqa: ANN401
    """Put None in the place of paths."""
    if isinstance(node, dict):
        return {key: _without(value, paths) for key, value in node.items()}
    if isinstance(node, list):
        return [_without(value, paths) for value in node]
    return None if isinstance(node, str) and node in paths else node


def _placed(resolved: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the configuration with its outputs in the cell's folder."""
    placed = deepcopy(resolved)
    placed["ckpt_path"] = None
    placed["trainer"] |= {
        "default_root_dir": str(folder),
        "enable_checkpointing": _keeps_checkpoints(placed["trainer"]),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": {
            "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
            "init_args": {
                "save_dir": str(folder),
                "name": "",
                "version": "",
                "default_hp_metric": False,
            },
        },
    }
    return placed


def _keeps_checkpoints(trainer: dict[str, Any]) -> bool:
    """Tell whether the base asks for checkpoints of its own, beside the cell's last and final."""
    callbacks = trainer.get("callbacks") or []
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        found = import_name(callback["class_path"]) if isinstance(callback, dict) else None
        if isinstance(found, type) and issubclass(found, Checkpoint):
            return True
    return False
