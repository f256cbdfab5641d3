"""Parse every cell with the real parser before anything trains; report all mistakes at once."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from pretzel.ablation.gridfile.grid import Grid, StageSpec
from pretzel.ablation.gridfile.reading import report
from pretzel.ablation.gridfile.run_config import paths_in, placed, substitute, without
from pretzel.ablation.identity.fingerprint import Fingerprint, fingerprint_of
from pretzel.ablation.planning.baseline_differences import contrast, tuned
from pretzel.ablation.planning.chains_to_runs import Cells
from pretzel.ablation.planning.config_resolver import Resolved, Resolver
from pretzel.ablation.planning.data_manifests import Manifests
from pretzel.ablation.planning.model_builder import Builder, PlanningCLI
from pretzel.ablation.planning.parsed_chains import Chain, Chains, Parsed, must_export
from pretzel.ablation.planning.plan import Plan, PlannedRun
from pretzel.ablation.planning.size_matching import Matcher
from pretzel.errors import UserError
from pretzel.runs.config.overlay import Config, at, fold, read

Progress = Callable[[int, int], None]
"""Is told how many combinations are parsed, and of how many."""


def plan_grid(grid: Grid, progress: Progress | None = None) -> Plan:
    """Parse all cells of a grid and build their models without memory; nothing is written.

    Args:
        grid: From :func:`pretzel.ablation.gridfile.reading.load`.
        progress: Is told how far it is.

    Raises:
        UserError: With all mistakes of all cells in one report.
    """
    return Planner(grid).plan(progress)


@cache
def _cli() -> PlanningCLI:
    return PlanningCLI()  # half a second to build


@dataclass
class Planner:
    """Plans one grid.

    Attributes:
        grid: The grid.
        resolve: Parses configurations.
        build: Builds models.
        manifests: Tells what data is read.
        mistakes: What is wrong, so far.
        weights: Where stages leave their weights, by the name of the stage.
        stands_for: What the path of a stage's weights stands for.
        stages: Runs that others need.
        used: Paths of weights that some configuration names.
    """

    grid: Grid
    resolve: Resolver = field(default_factory=lambda: Resolver(_cli()))
    build: Builder = field(default_factory=lambda: Builder(_cli()))
    manifests: Manifests = field(default_factory=lambda: Manifests(_cli()))
    mistakes: list[str] = field(default_factory=list)
    weights: dict[str, str] = field(default_factory=dict)
    stands_for: dict[str, str] = field(default_factory=dict)
    stages: dict[str, PlannedRun] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def fingerprint_of(self, config: Config, resolved: Resolved) -> Fingerprint:
        """Return what of a configuration can change a result."""
        return fingerprint_of(resolved.values, self.stands_for, self.manifests(config, resolved))

    def plan(self, progress: Progress | None = None) -> Plan:
        """Return the plan.

        Raises:
            UserError: With all mistakes.
        """
        self.parse_stages()
        chains = self.chains(progress)
        self.refuse_equal_arms(chains)
        if not self.mistakes:  # an arm that is wrong may be the one that uses a stage
            for name, weights in self.weights.items():
                if weights not in self.used:
                    unused = f"{self.grid.file}: stages.{name}: nothing names {{stages.{name}}}"
                    self.mistakes.append(unused)
        baseline = chains.get(self.grid.baseline_name)
        if baseline is not None and not baseline.links:
            reason = next(reversed(baseline.absent.values()))
            self.mistakes.append(f"{self.grid.file}: the baseline is not applicable: {reason}")
        if self.mistakes or baseline is None:
            raise report(self.mistakes, self.grid.file)
        made = Cells(self.grid, self.named_stages, self.stages)
        cells = [made.cell(arm, chains[arm], seed) for arm, seed in self.order(chains)]
        return Plan(
            grid=self.grid,
            stages=tuple(self.stages.values()),
            cells=tuple(cell for cell in cells if cell is not None),
            changes={name: contrast(baseline, chain) for name, chain in chains.items()},
            choices={one.name: one.choices for one in self.grid.combinations},
            absent={name: chain.absent for name, chain in chains.items()},
            sizes={name: chain.sizes for name, chain in chains.items()},
            matched={name: c.matched for name, c in chains.items() if c.matched is not None},
            tuned={name: tuned(chain) for name, chain in chains.items()},
        )

    def chains(self, progress: Progress | None) -> dict[str, Chain]:
        """Return the chains of all combinations that are not wrong."""
        match = self.grid.match
        matcher = None
        if match is not None:
            matcher = Matcher(match, f"{self.grid.file}: match", self.size, self.value)
        chain = Chains(self.grid, self.bases(), self.parse, matcher)
        combinations = self.grid.combinations
        chains: dict[str, Chain] = {}
        wrong: dict[str, list[str]] = {}
        for number, combination in enumerate(combinations):
            try:
                chains[combination.name] = chain(combination)
            except UserError as error:
                wrong.setdefault(str(error), []).append(combination.name)
            if progress is not None:
                progress(number + 1, len(combinations))
        for message, names in wrong.items():
            # What every cell is refused for is no arm's mistake.
            every = len(names) == len(combinations) > 1
            self.mistakes += [message] if every else [f"{message} (cell {n})" for n in names]
        return chains

    def order(self, arms: Iterable[str]) -> list[tuple[str, int]]:
        """Return arms and seeds in the order in which their cells start."""
        if self.grid.order == "arms":
            return list(itertools.product(arms, self.grid.seeds))
        return [(arm, seed) for seed, arm in itertools.product(self.grid.seeds, list(arms))]

    def bases(self) -> dict[str, Config]:
        """Return the configuration under all arms, by link of the chain."""
        links = self.grid.chain or (StageSpec(name="", configs=()),)
        try:
            return {
                link.name: fold([read(file) for file in (*self.grid.base, *link.configs)])
                for link in links
            }
        except UserError as error:
            raise report([*self.mistakes, str(error)], self.grid.file) from error

    def parse_stages(self) -> None:
        """Parse the upstream runs that all cells share."""
        for stage in self.grid.stages:
            name = f"stages/{stage.name}"
            path = self.grid.output / name
            mark = "unknown"
            try:
                config = fold([read(file) for file in stage.configs])
                parsed = self.parse(config, count=False)
                must_export(parsed.resolved, config)
            except UserError as error:
                self.mistakes.append(f"{error} (stage {stage.name})")
            else:
                mark = parsed.fingerprint.training
                self.stages[name] = PlannedRun(
                    name=name,
                    arm=stage.name,
                    seed=None,
                    identity=mark,
                    record=parsed.fingerprint.record(),
                    config=placed(parsed.resolved, path),
                    export=True,
                    tests=False,
                    needs=self.named_stages(parsed.resolved),
                    family=mark,
                )
            # only now: a stage may name earlier stages, not itself
            self.weights[stage.name] = str(path / "weights.safetensors")
            self.stands_for[self.weights[stage.name]] = f"stage {stage.name} {mark}"

    def named_stages(self, resolved: dict[str, Any]) -> tuple[str, ...]:
        """Return the stages whose weights a configuration names."""
        paths = paths_in(resolved, set(self.weights.values())) if self.weights else set()
        return tuple(f"stages/{name}" for name, path in self.weights.items() if path in paths)

    def parse(self, config: Config, count: bool) -> Parsed:
        """Parse a configuration and build its model.

        Args:
            config: The configuration; it may name stages.
            count: Whether FLOPs are counted.

        Raises:
            UserError: If it is wrong, or a constructor refuses its arguments.
        """
        config = self.substituted(config)
        self.used |= paths_in(config.values, set(self.weights.values()))
        resolved = self.resolve(config)
        bare = self.before_stages(config)
        sizes = None if bare is None else self.build(bare, self.resolve(bare), count=count)
        fingerprint = self.fingerprint_of(config, resolved)
        return Parsed(resolved=resolved.values, fingerprint=fingerprint, sizes=sizes)

    def substituted(self, config: Config) -> Config:
        """Put paths in the place of ``{stages.NAME}``."""
        values = substitute(config.values, self.weights, config)
        return Config(values=values, sources=config.sources)

    def before_stages(self, config: Config) -> Config | None:
        """Return what can be built before the stages have run: without their weights.

        None where a part takes no None in the place of a stage's weights.
        """
        values = without(config.values, set(self.weights.values())) if self.weights else {}
        if not self.weights or values == config.values:
            return config
        bare = Config(values=values, sources=config.sources)
        try:
            self.resolve(bare)
        except UserError:
            return None
        return bare

    def size(self, config: Config) -> int | None:
        """Return the size that arms are matched by."""
        match = self.grid.match
        assert match is not None, "only a grid that matches asks"
        sizes = self.parse(config, count=match.by == "flops").sizes
        if sizes is None:
            return None
        return sizes.flops if match.by == "flops" else sizes.trainable

    def value(self, config: Config, path: tuple[str, ...]) -> object:
        """Return what stands at a path of a configuration, defaults included."""
        return at(self.resolve(self.substituted(config)).values, path)

    def refuse_equal_arms(self, chains: dict[str, Chain]) -> None:
        """Refuse arms that come to the same configuration: they would only look like a result."""
        seen: dict[str, str] = {}
        for name, chain in chains.items():
            if not chain.links:
                continue
            other = seen.setdefault(chain.mark, name)
            if other == name:
                continue
            told = f"is the same as {other}"
            if other == self.grid.baseline_name:
                told = f"changes nothing against the baseline {other}"
            self.mistakes.append(f"{self.grid.file}: {name} {told}")
