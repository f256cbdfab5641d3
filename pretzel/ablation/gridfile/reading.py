"""The grid file, read; every mistake of it in one report."""

import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pretzel.ablation.gridfile.combine import combinations
from pretzel.ablation.gridfile.definition import ArmFile, GridFile
from pretzel.ablation.gridfile.grid import (
    Arm,
    Axis,
    Combination,
    Grid,
    Metric,
    Override,
    StageSpec,
    Tuning,
)
from pretzel.ablation.gridfile.typed import TypedReader
from pretzel.errors import UserError, did_you_mean
from pretzel.runs.config.yaml_lines import Key, Source, read_mapping


def report(mistakes: list[str], file: str | Path) -> UserError:
    """Return one error that lists all mistakes; nothing has been started."""
    unique = list(dict.fromkeys(mistakes))
    if len(unique) == 1:
        return UserError(unique[0])
    listed = "".join(f"\n  - {mistake}" for mistake in unique)
    return UserError(f"{len(unique)} mistakes in {file}, nothing was started:{listed}")


def load(path: str | Path) -> Grid:
    """Read a grid file.

    Args:
        path: The YAML file; the files that it names are relative to it.

    Returns:
        The grid.

    Raises:
        UserError: With all mistakes in one report.
    """
    values, sources = read_mapping(path)
    reader = _Reader(Path(path), values, sources)
    grid = reader.grid()
    if reader.mistakes:
        raise report(reader.mistakes, path)
    return grid


class _Reader(TypedReader):
    """Checks what the types of a grid file cannot say: files, and names that must exist."""

    def __init__(self, file: Path, values: dict[str, Any], sources: dict[Key, Source]) -> None:
        super().__init__(file, sources)
        self.given = self.read(GridFile, values)

    def grid(self) -> Grid:
        given = self.given
        axes = self.axes()
        return Grid(
            file=self.file,
            base=self.files(("base",), given.base),
            axes=axes,
            combinations=self.combinations(axes),
            seeds=tuple(given.seeds),
            baseline=given.baseline,
            metrics=tuple(Metric(name=n, direction=d) for n, d in given.metrics.items()),
            stages=tuple(
                StageSpec(name=name, configs=self.files(("stages", name), files))
                for name, files in given.stages.items()
            ),
            chain=tuple(
                StageSpec(name=name, configs=self.files(("chain", name), files))
                for name, files in given.chain.items()
            ),
            match=given.match,
            tuning=self.tuning(axes),
            output=Path(given.output or f"runs/{self.file.stem}"),
            checkpoint_seconds=float(given.checkpoint_seconds),
            hang_seconds=given.hang_seconds,
            order=given.order,
        )

    def files(self, key: Key, names: str | list[str]) -> tuple[Path, ...]:
        paths = [self.file.parent / n for n in ([names] if isinstance(names, str) else names) if n]
        for path in paths:
            if not path.is_file():
                self.wrong(key, f"{path}: no such file")
        return tuple(paths)

    def axes(self) -> tuple[Axis, ...]:
        axes = tuple(
            Axis(
                name=axis,
                arms=tuple(self.arm(("axes", axis, name), arm) for name, arm in arms.items()),
            )
            for axis, arms in self.given.axes.items()
        )
        self.conflicts(axes)
        return axes

    def arm(self, at: Key, given: ArmFile) -> Arm:
        overrides = [self.override((*at, key), value) for key, value in given.overrides.items()]
        tune = [self.override((*at, "tune", key), value) for key, value in given.tune.items()]
        for one in tune:
            if any(_is_inside(other, one) for other in overrides):
                self.wrong((*at, "tune", one.key), "the arm sets it too; only tune it")
        if tune and self.given.tuning is None:
            self.wrong(
                (*at, "tune"), "the grid must say how: tuning: {metric: ..., direction: ...}"
            )
        return Arm(name=at[-1], overrides=tuple(overrides), tune=tuple(tune))

    def override(self, at: Key, value: object) -> Override:
        """Return one override; the first part of its key may name a link of the chain."""
        first, _, rest = at[-1].partition(".")
        source = self.source(at)
        if first not in self.given.chain:
            return Override(key=at[-1], value=value, source=source)
        if not rest and value is not None:
            self.wrong(at, f"must be null, which leaves {first} out, or a key in it, got {value!r}")
        return Override(link=first, key=rest, value=value, source=source)

    def conflicts(self, axes: tuple[Axis, ...]) -> None:
        """Refuse keys that two axes set: the later one would win in silence."""
        for first, second in itertools.combinations(axes, 2):
            early = {(o.link, o.key): o for arm in first.arms for o in (*arm.overrides, *arm.tune)}
            for arm in second.arms:
                for override in (*arm.overrides, *arm.tune):
                    for one in early.values():
                        if _is_inside(one, override):
                            where = f"axes.{second.name}.{arm.name}.{override.key}"
                            self.mistakes.append(
                                f"{override.source}: {where}: axis {first.name} sets {one.key} "
                                "too; two axes may not set one key"
                            )

    def tuning(self, axes: tuple[Axis, ...]) -> Tuning | None:
        tuning, seeds = self.given.tuning, self.given.seeds
        if tuning is None:
            return None
        if not any(arm.tune for axis in axes for arm in axis.arms):
            self.wrong(("tuning",), "no arm has `tune: {key: [values]}`")
        if tuning.seed in seeds:
            self.wrong(
                ("tuning", "seed"), f"must be none of the compared, {seeds}, which it favours"
            )
        return replace(
            tuning, seed=max(seeds, default=0) + 1 if tuning.seed is None else tuning.seed
        )

    def combinations(self, axes: tuple[Axis, ...]) -> tuple[Combination, ...]:
        baseline: Mapping[str, str] = self.given.baseline
        arms = {axis.name: [arm.name for arm in axis.arms] for axis in axes}
        good = bool(arms) and bool(baseline)
        for axis, arm in baseline.items() if good else ():
            if axis not in arms:
                self.wrong(("baseline", axis), f"no such axis{did_you_mean(axis, arms)}")
            elif arm not in arms[axis]:
                near = did_you_mean(arm, arms[axis])
                self.wrong(("baseline", axis), f"no such arm '{arm}'{near}")
                good = False
        for axis in arms.keys() - baseline.keys() if baseline else ():
            self.wrong(("baseline",), f"needs an arm of axis {axis}")
            good = False
        if not good:
            return ()
        given = self.given
        return combinations(axes, baseline, given.combine, given.exclude, given.include, self.wrong)


def _is_inside(one: Override, other: Override) -> bool:
    """Tell whether one override sets what another one sets too, or a part of it."""
    if one.link is not None and other.link is not None and one.link != other.link:
        return False
    return one.key == other.key or one.key.startswith(f"{other.key}.")
