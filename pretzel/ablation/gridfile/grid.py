"""A grid: a base, axes of named arms, seeds, a baseline and metrics."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretzel.ablation.gridfile.schema import Direction, Match, Order, Tuning
from pretzel.runs.config.yaml_lines import Source


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
    """One choice on an axis; without overrides it is the base itself.

    The keys in ``tune`` are chosen on validation: the value of each is a list of candidates.
    """

    name: str
    overrides: tuple[Override, ...]
    tune: tuple[Override, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A question that the grid asks: named arms of which each combination takes one."""

    name: str
    arms: tuple[Arm, ...]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """An upstream run that others share: files, and what is laid over them."""

    files: tuple[Path, ...]
    overrides: tuple[Override, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric of the table and which direction is better."""

    name: str
    direction: Direction
    source: Source | None = None  # where it is written, if in a grid file

    @property
    def arrow(self) -> str:
        """``↑`` where more is better."""
        return "↑" if self.direction == "max" else "↓"


@dataclass(frozen=True, kw_only=True)
class Combination:
    """One arm of every axis: a row of the table."""

    arms: tuple[tuple[str, Arm], ...]

    @property
    def name(self) -> str:
        """The arm names joined by ``+``; a folder and a TensorBoard run are called so."""
        return "+".join(arm.name for _, arm in self.arms)

    @property
    def choices(self) -> dict[str, str]:
        """The name of the arm by axis."""
        return {axis: arm.name for axis, arm in self.arms}

    def overrides(self, link: str) -> list[Override]:
        """Return what the arms set in a link of the chain: for all links first."""
        own = [one for _, arm in self.arms for one in arm.overrides if one.link in (None, link)]
        return sorted(own, key=lambda one: one.link is not None)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A grid file, read and checked as far as that goes without parsing the arms.

    The fields are those of :class:`.schema.GridFile`, with paths relative to the working directory
    and defaults filled in; ``combinations`` has the baseline first, and ``tuning`` names its seed.
    """

    file: Path
    base: tuple[Path, ...]
    axes: tuple[Axis, ...]
    combinations: tuple[Combination, ...]
    seeds: tuple[int, ...]
    metrics: tuple[Metric, ...]
    stages: dict[str, Stage]
    chain: dict[str, tuple[Path, ...]]
    match: Match | None
    tuning: Tuning | None
    output: Path
    checkpoint_seconds: float
    hang_seconds: float | None
    order: Order

    @property
    def baseline_name(self) -> str:
        """The name of the baseline's combination."""
        return self.combinations[0].name
