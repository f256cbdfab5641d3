"""Reads a grid file, with every mistake of it in one report."""

import itertools
import re
from pathlib import Path

from pydantic import ValidationError

from pretzel.ablation.gridfile.combine import combinations
from pretzel.ablation.gridfile.grid import Arm, Axis, Grid, Metric, Override, Stage
from pretzel.ablation.gridfile.mistakes import mistakes
from pretzel.ablation.gridfile.run_names import name_mistakes, shortened
from pretzel.ablation.gridfile.schema import DOTTED_KEY, ArmEntry, GridFile, StageEntry, Tuning
from pretzel.errors import UserError
from pretzel.runs.config.nested import APPENDS
from pretzel.runs.config.overlay import Config, at
from pretzel.runs.config.yaml_lines import Key, Source, read_mapping


def report(mistakes: list[str], file: str | Path) -> UserError:
    """Return one error that lists all mistakes; nothing has been started."""
    unique = list(dict.fromkeys(mistakes))
    if len(unique) == 1:
        return UserError(unique[0])
    listed = "".join(f"\n  - {mistake}" for mistake in unique)
    return UserError(f"{len(unique)} mistakes in {file}, nothing was started:{listed}")


def load(path: str | Path) -> Grid:
    """Read a grid file; the files that it names are relative to it.

    Raises:
        UserError: With all mistakes in one report.
    """
    values, sources = read_mapping(path)
    reader = _Reader(Path(path), Config(values=values, sources=sources))
    content = reader.content()
    grid = None if content is None else reader.grid(content)
    if grid is None or reader.mistakes:
        raise report(reader.mistakes, path)
    return grid


class _Reader:
    """Checks a grid file, and collects every mistake instead of stopping at the first."""

    def __init__(self, file: Path, config: Config) -> None:
        self.file, self.config = file, config
        self.mistakes: list[str] = []

    def source(self, key: Key) -> Source:
        """Return where a key is written, or the nearest mapping that holds it."""
        return self.config.source(key) or Source(name=str(self.file))

    def wrong(self, key: Key, message: str) -> None:
        """Note a mistake."""
        path = ".".join(shortened(part) for part in key)
        self.mistakes.append(f"{self.source(key)}: {path}: {message}")

    def content(self) -> GridFile | None:
        """Return the content of the file, without what is wrong; None if too little is left."""
        values = self.config.values
        try:
            return GridFile.model_validate(values)
        except ValidationError as error:
            wrong = dict(mistakes(error, values))
        for key, message in wrong.items():
            self.wrong(key, message)
        # what is right is checked further, so that all mistakes are in one report
        stand_ins = {
            "base": self.file.name,
            "metrics": {},
            "tuning": {"metric": "any", "direction": "min"},
        }
        for key in wrong:
            arms = at(values, key[:2]) if key[0] == "axes" else None
            if isinstance(arms, dict) and key[2:3] and key[2] in arms:
                arms[key[2]] = {}
            elif key[0] in stand_ins:
                values[key[0]] = stand_ins[key[0]]
            else:
                values.pop(key[0], None)
        try:
            return GridFile.model_validate(values)
        except ValidationError:
            return None

    def grid(self, content: GridFile) -> Grid:
        """Return the grid, after checks that types cannot do: of files, and names that must be."""
        axes = self.axes(content)
        grid = Grid(
            file=self.file,
            base=self.files(("base",), content.base),
            axes=axes,
            combinations=combinations(axes, content, self.wrong),
            seeds=tuple(content.seeds),
            metrics=tuple(
                Metric(name=name, direction=direction, source=self.source(("metrics", name)))
                for name, direction in content.metrics.items()
            ),
            stages={name: self.stage(name, entry) for name, entry in content.stages.items()},
            chain={link: self.files(("chain", link), f) for link, f in content.chain.items()},
            match=content.match,
            tuning=self.tuning(axes, content),
            output=Path(content.output or f"runs/{self.file.stem}"),
            checkpoint_seconds=content.checkpoint_seconds,
            hang_seconds=content.hang_seconds,
            order=content.order,
        )
        for key, message in name_mistakes(grid):
            self.wrong(key, message)
        return grid

    def files(self, key: Key, names: str | list[str]) -> tuple[Path, ...]:
        # relative to the grid file, so that a grid may be run from any folder
        paths = [self.file.parent / n for n in ([names] if isinstance(names, str) else names)]
        for path in paths:
            if not path.is_file():
                self.wrong(key, f"{path}: no such file")
        return tuple(paths)

    def stage(self, name: str, entry: str | list[str] | StageEntry) -> Stage:
        at = ("stages", name)
        if not isinstance(entry, StageEntry):
            return Stage(files=self.files(at, entry))
        overrides = [
            Override(key=key, value=value, source=self.source((*at, key)))
            for key, value in self.dotted(at, entry.model_extra).items()
        ]
        files = self.files((*at, "base"), entry.base)
        return Stage(files=files, overrides=tuple(overrides))

    def dotted(self, at: Key, values: dict[str, object] | None) -> dict[str, object]:
        """Return what is set by dotted key, after a check of the keys."""
        for key in values or {}:
            if not re.search(DOTTED_KEY, key):
                message = f"must be a dotted key, such as model.init_args.lr, got {key!r}"
                self.wrong((*at, key), message)
        return values or {}

    def axes(self, content: GridFile) -> tuple[Axis, ...]:
        axes = []
        for axis, entries in content.axes.items():
            arms = [self.arm(("axes", axis, n), entry, content) for n, entry in entries.items()]
            axes.append(Axis(name=axis, arms=tuple(arms)))
        self.refuse_conflicts(axes)
        return tuple(axes)

    def arm(self, at: Key, entry: ArmEntry, content: GridFile) -> Arm:
        set_keys = self.dotted(at, entry.model_extra)
        overrides = [self.override((*at, k), value, content) for k, value in set_keys.items()]
        tune = [self.override((*at, "tune", k), v, content) for k, v in entry.tune.items()]
        for one in tune:
            if any(_is_inside(other, one) for other in overrides):
                self.wrong((*at, "tune", one.key), "the arm sets it too; only tune it")
        if tune and content.tuning is None:
            example = "tuning: {metric: ..., direction: ...}"
            self.wrong((*at, "tune"), f"the grid must say how: {example}")
        return Arm(name=at[-1], overrides=tuple(overrides), tune=tuple(tune))

    def override(self, at: Key, value: object, content: GridFile) -> Override:
        """Return one override; the first part of its key may name a link of the chain."""
        first, _, rest = at[-1].partition(".")
        source = self.source(at)
        if first not in content.chain:
            return Override(key=at[-1], value=value, source=source)
        if not rest and value is not None:
            self.wrong(at, f"must be null, which leaves {first} out, or a key in it, got {value!r}")
        return Override(link=first, key=rest, value=value, source=source)

    def refuse_conflicts(self, axes: list[Axis]) -> None:
        """Refuse keys that two axes set: the later one would win in silence."""
        for first, second in itertools.combinations(axes, 2):
            for (_, one), (arm, other) in itertools.product(_settings(first), _settings(second)):
                if _is_inside(one, other):
                    self.mistakes.append(
                        f"{other.source}: axes.{second.name}.{arm}.{other.key}: axis {first.name} "
                        f"sets {one.key} too; two axes may not set one key"
                    )

    def tuning(self, axes: tuple[Axis, ...], content: GridFile) -> Tuning | None:
        tuning, seeds = content.tuning, content.seeds
        if tuning is None:
            return None
        if not any(arm.tune for axis in axes for arm in axis.arms):
            self.wrong(("tuning",), "no arm has `tune: {key: [values]}`")
        if tuning.seed in seeds:
            message = f"must be none of the compared, {seeds}, which it favours"
            self.wrong(("tuning", "seed"), message)
        # none of the compared seeds: values chosen on a seed look better on it
        seed = max(seeds) + 1 if tuning.seed is None else tuning.seed
        return tuning.model_copy(update={"seed": seed})


def _settings(axis: Axis) -> list[tuple[str, Override]]:
    """Return all that the arms of an axis set, with the arm's name."""
    return [(arm.name, one) for arm in axis.arms for one in (*arm.overrides, *arm.tune)]


def _is_inside(one: Override, other: Override) -> bool:
    """Tell whether one override sets what another one sets too, or a part of it."""
    if one.link is not None and other.link is not None and one.link != other.link:
        return False
    if other.key.endswith(APPENDS):
        return False  # what it is appended to stays
    first, second = _plain(one.key), _plain(other.key)
    return first == second or first.startswith(f"{second}.")


def _plain(key: str) -> str:
    parts = key.removesuffix(APPENDS).split(".")
    return ".".join(part for part in parts if part != "init_args")
