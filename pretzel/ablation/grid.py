"""A grid: a base, axes of named arms, seeds, a baseline and metrics."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pretzel.ablation.yamlfile import Source

Direction = Literal["max", "min"]
Order = Literal["seeds", "arms"]


@dataclass(frozen=True, kw_only=True)
class Override:
    """One dotted key that an arm sets.

    Attributes:
        link: The link of the chain that it is for; None for all of them.
        key: For example ``model.init_args.interleaving``; empty where the arm leaves the link out.
        value: Any YAML value.
        source: Where it is written.
    """

    link: str | None = None
    key: str
    value: Any
    source: Source


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One choice on an axis; without overrides it is the base itself."""

    name: str
    overrides: tuple[Override, ...]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A question that the grid asks: named arms of which each cell takes one."""

    name: str
    arms: tuple[Arm, ...]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric of the table and which direction is better."""

    name: str
    direction: Direction

    @property
    def arrow(self) -> str:
        """``↑`` where more is better."""
        return "↑" if self.direction == "max" else "↓"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """An upstream run that all cells share, and whose exported weights they may name."""

    name: str
    configs: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True)
class Link:
    """One run of every cell's chain, which starts from the weights of the one before."""

    name: str
    configs: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True)
class Combination:
    """One arm of every axis: what a row of the table stands for."""

    arms: tuple[tuple[str, Arm], ...]

    @property
    def name(self) -> str:
        """The arm names joined by ``+``; a folder and a TensorBoard run are called so."""
        return "+".join(arm.name for _, arm in self.arms)

    @property
    def choices(self) -> dict[str, str]:
        """The name of the arm by axis."""
        return {axis: arm.name for axis, arm in self.arms}

    def overrides(self, link: str) -> Iterator[Override]:
        """Yield what the arms set in a link of the chain: for all links first."""
        found = [override for _, arm in self.arms for override in arm.overrides]
        yield from (override for override in found if override.link is None)
        yield from (override for override in found if override.link == link)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A grid file, read and checked as far as that goes without parsing the cells.

    Attributes:
        file: The file, as the user named it.
        base: Configurations under every cell, the last one on top.
        axes: What is varied.
        seeds: One cell for each arm and seed.
        baseline: The arm of each axis that differences are taken to.
        metrics: Columns of the table, in order.
        stages: Upstream runs, in order.
        chain: The runs of a cell, one after the other; without any, the base is the only one.
        output: The folder of all runs.
        checkpoint_seconds: Time between the checkpoints from which a killed cell continues.
        order: Which cells start first: ``seeds``, seed by seed, so that a grid that is stopped has
            whole rows; ``arms``, arm by arm, so that cells of equal length run side by side.
    """

    file: Path
    base: tuple[Path, ...]
    axes: tuple[Axis, ...]
    seeds: tuple[int, ...]
    baseline: dict[str, str]
    metrics: tuple[Metric, ...]
    stages: tuple[Stage, ...]
    chain: tuple[Link, ...]
    output: Path
    checkpoint_seconds: float
    order: Order

    def combinations(self) -> Iterator[Combination]:
        """Yield the product of the axes, the baseline first."""
        product = [
            Combination(arms=tuple(zip((axis.name for axis in self.axes), arms, strict=True)))
            for arms in itertools.product(*(axis.arms for axis in self.axes))
        ]
        yield from sorted(product, key=lambda c: c.choices != self.baseline)

    @property
    def baseline_name(self) -> str:
        """The name of the baseline's combination."""
        return next(self.combinations()).name
