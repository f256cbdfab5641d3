"""The grid file, read; every mistake of it in one report."""

import itertools
import re
from pathlib import Path
from typing import Any, cast

from pretzel.ablation.grid import (
    Arm,
    Axis,
    Direction,
    Grid,
    Link,
    Metric,
    Order,
    Override,
    Stage,
)
from pretzel.ablation.suggest import did_you_mean
from pretzel.ablation.yamlfile import Key, Source, read_mapping
from pretzel.errors import UserError

_KEYS = (
    "base", "axes", "combine", "seeds", "baseline", "metrics", "stages", "chain", "output",
    "checkpoint_seconds", "order",
)  # fmt: skip
_GROUPS = ("model", "data", "trainer", "optimizer", "lr_scheduler", "seed_everything", "ckpt_path")
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")


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


class _Reader:
    """Collects every mistake of a file instead of stopping at the first."""

    def __init__(self, file: Path, values: dict[str, Any], sources: dict[Key, Source]) -> None:
        self.file, self.values, self.sources = file, values, sources
        self.mistakes: list[str] = []

    def wrong(self, key: Key, message: str) -> None:
        source = next(
            (self.sources[key[:n]] for n in range(len(key), 0, -1) if key[:n] in self.sources),
            Source(name=str(self.file)),
        )
        self.mistakes.append(f"{source}: {'.'.join(key)}: {message}")

    def grid(self) -> Grid:
        for key in self.values:
            if key not in _KEYS:
                self.wrong((str(key),), f"unknown key{did_you_mean(str(key), _KEYS)}")
        if self.values.get("combine", "product") != "product":
            self.wrong(("combine",), f"must be product, got {self.values['combine']!r}")
        seconds = self.values.get("checkpoint_seconds", 20)
        if not isinstance(seconds, int | float) or isinstance(seconds, bool) or seconds <= 0:
            self.wrong(("checkpoint_seconds",), f"must be a positive number, got {seconds!r}")
            seconds = 20
        order = self.values.get("order", "seeds")
        if order not in ("seeds", "arms"):
            self.wrong(("order",), f"must be seeds or arms, got {order!r}")
            order = "seeds"
        output = self.values.get("output", f"runs/{self.file.stem}")
        if not isinstance(output, str):
            self.wrong(("output",), f"must be a folder, got {output!r}")
        chain = self.chain()
        axes = self.axes({link.name for link in chain})
        return Grid(
            file=self.file,
            base=self.files(("base",), self.values.get("base")),
            axes=axes,
            seeds=self.seeds(),
            baseline=self.baseline(axes),
            metrics=self.metrics(),
            stages=self.stages(),
            chain=chain,
            output=Path(str(output)),
            checkpoint_seconds=float(seconds),
            order=cast(Order, order),
        )

    def mapping(self, key: Key, value: object, of: str) -> dict[str, Any]:
        if isinstance(value, dict) and all(isinstance(name, str) for name in value):
            return value
        self.wrong(key, f"must map {of}, got {value!r}")
        return {}

    def named(self, key: Key) -> None:
        if not _NAME.match(key[-1]):
            self.wrong(key, "a name becomes a folder: use letters, digits, '.', '_' and '-'")

    def files(self, key: Key, value: object) -> tuple[Path, ...]:
        names = value if isinstance(value, list) else [value]
        if not names or not all(isinstance(name, str) for name in names):
            self.wrong(key, f"must be a file or a list of files, got {value!r}")
            return ()
        paths = tuple(self.file.parent / str(name) for name in names)
        for path in paths:
            if not path.is_file():
                self.wrong(key, f"{path}: no such file")
        return paths

    def axes(self, links: set[str]) -> tuple[Axis, ...]:
        axes = []
        for axis, arms in self.mapping(("axes",), self.values.get("axes"), "axes to arms").items():
            self.named(("axes", axis))
            found = []
            for name, changes in self.mapping(("axes", axis), arms, "arms to overrides").items():
                at = ("axes", axis, name)
                self.named(at)
                overrides = self.mapping(at, changes, "dotted keys to values ({} for no change)")
                found.append(
                    Arm(
                        name=name,
                        overrides=tuple(
                            self.override((*at, key), value, links)
                            for key, value in overrides.items()
                        ),
                    )
                )
            axes.append(Axis(name=axis, arms=tuple(found)))
        if not axes and not self.mistakes:
            self.wrong(("axes",), "at least one axis is needed")
        self.conflicts(axes)
        return tuple(axes)

    def override(self, at: Key, value: object, links: set[str]) -> Override:
        """Return one override; the first part of its key may name a link of the chain."""
        first, _, rest = at[-1].partition(".")
        source = self.sources[at]
        if first not in links:
            return Override(key=at[-1], value=value, source=source)
        if not rest and value is not None:
            self.wrong(at, f"must be null, which leaves {first} out, or a key in it, got {value!r}")
        return Override(link=first, key=rest, value=value, source=source)

    def conflicts(self, axes: list[Axis]) -> None:
        """Refuse keys that two axes set: the later one would win in silence."""
        for first, second in itertools.combinations(axes, 2):
            early = {(o.link, o.key) for arm in first.arms for o in arm.overrides}
            for arm in second.arms:
                for override in arm.overrides:
                    for link, key in early:
                        if link not in (None, override.link) and override.link is not None:
                            continue
                        if key == override.key or key.startswith(f"{override.key}."):
                            self.wrong(
                                ("axes", second.name, arm.name, override.key),
                                f"axis {first.name} sets {key} too; two axes may not set one key",
                            )

    def seeds(self) -> tuple[int, ...]:
        seeds = self.values.get("seeds", [0])
        good = isinstance(seeds, list) and all(type(s) is int and s >= 0 for s in seeds)
        if not good or not seeds or len(set(seeds)) != len(seeds):
            self.wrong(("seeds",), f"must be a list of different integers from 0, got {seeds!r}")
            return (0,)
        return tuple(seeds)

    def baseline(self, axes: tuple[Axis, ...]) -> dict[str, str]:
        given = self.mapping(("baseline",), self.values.get("baseline"), "each axis to an arm")
        by_name = {axis.name: [arm.name for arm in axis.arms] for axis in axes}
        for axis, arm in given.items():
            if axis not in by_name:
                self.wrong(("baseline", axis), f"no such axis{did_you_mean(axis, by_name)}")
            elif arm not in by_name[axis]:
                near = did_you_mean(str(arm), by_name[axis])
                self.wrong(("baseline", axis), f"no such arm '{arm}'{near}")
        if given:
            for axis in by_name.keys() - given.keys():
                self.wrong(("baseline",), f"needs an arm of axis {axis}")
        return {axis: str(given.get(axis)) for axis in by_name}

    def metrics(self) -> tuple[Metric, ...]:
        metrics = []
        given = self.mapping(("metrics",), self.values.get("metrics"), "metrics to max or min")
        for name, direction in given.items():
            if direction not in ("max", "min"):
                self.wrong(("metrics", name), f"must be max or min, got {direction!r}")
                continue
            metrics.append(Metric(name=name, direction=cast(Direction, direction)))
        return tuple(metrics)

    def stages(self) -> tuple[Stage, ...]:
        stages = []
        given = self.mapping(("stages",), self.values.get("stages", {}), "stages to files")
        for name, files in given.items():
            self.named(("stages", name))
            stages.append(Stage(name=name, configs=self.files(("stages", name), files)))
        return tuple(stages)

    def chain(self) -> tuple[Link, ...]:
        links = []
        given = self.mapping(("chain",), self.values.get("chain", {}), "links to files")
        for name, files in given.items():
            self.named(("chain", name))
            if name in _GROUPS or "." in name:
                self.wrong(("chain", name), f"must not contain '.' or be one of {_GROUPS}")
            links.append(Link(name=name, configs=self.files(("chain", name), files)))
        return tuple(links)
