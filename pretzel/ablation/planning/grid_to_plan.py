"""Parses every arm with the real parser before anything trains; reports all mistakes at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from pretzel.ablation.gridfile.grid import Grid
from pretzel.ablation.gridfile.reading import report
from pretzel.ablation.gridfile.run_config import overridden, placed, substitute, without
from pretzel.ablation.identity.fingerprint import fingerprint_of
from pretzel.ablation.planning.baseline_differences import baseline_differences
from pretzel.ablation.planning.chains_to_runs import RunMaker
from pretzel.ablation.planning.config_resolver import Resolver
from pretzel.ablation.planning.metric_check import check_metrics
from pretzel.ablation.planning.metric_names import MetricNames
from pretzel.ablation.planning.model_builder import Builder, PlanningCLI
from pretzel.ablation.planning.parsed_chains import Chain, ChainParser, ParsedConfig, must_export
from pretzel.ablation.planning.plan import Plan, PlannedRun
from pretzel.ablation.planning.size_matching import Matcher
from pretzel.errors import UserError
from pretzel.files.content_hash import file_hash
from pretzel.runs.accumulation import check_accumulation
from pretzel.runs.config.class_paths import import_name
from pretzel.runs.config.explain import construction
from pretzel.runs.config.nested import leaves
from pretzel.runs.config.overlay import Config, at, fold, read
from pretzel.runs.selection import check_selection, why_test_data

Progress = Callable[[int, int], None]
"""Called after each combination with the number of those that are parsed, and of all."""


def plan_grid(grid: Grid, progress: Progress | None = None) -> Plan:
    """Parse all arms of a grid and build their models without memory; nothing is written.

    Raises:
        UserError: With the mistakes of all arms in one report.
    """
    return Planner(grid).plan(progress)


@cache
def _cli() -> PlanningCLI:
    return PlanningCLI()  # half a second to build


@dataclass
class Planner:
    """Plans one grid.

    Attributes:
        weights: Paths of stages' weights, by the name of the stage.
        weights_origins: Identity of the stage that writes weights, by their path.
        stages: Runs that others need.
        used: Names of stages whose weights some configuration names.
        files: Files of the configuration.
    """

    grid: Grid
    cli: PlanningCLI = field(default_factory=_cli)
    resolve: Resolver = field(default_factory=lambda: Resolver(_cli()))
    build: Builder = field(default_factory=lambda: Builder(_cli()))
    mistakes: list[str] = field(default_factory=list)
    weights: dict[str, str] = field(default_factory=dict)
    weights_origins: dict[str, str] = field(default_factory=dict)
    stages: dict[str, PlannedRun] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    files: set[Path] = field(default_factory=set)

    def plan(self, progress: Progress | None = None) -> Plan:
        """Return the plan, or raise all mistakes in one error."""
        self.parse_stages()
        chains = self.chains(progress)
        self.refuse_equal_arms(chains)
        mistakes, warnings = check_metrics(self.grid, chains)
        self.mistakes += mistakes
        if not self.mistakes:  # an arm that is wrong may be the one that uses a stage
            for name in self.weights:
                if f"stages/{name}" not in self.used:
                    self.wrong(f"stages.{name}: nothing names {{stages.{name}}}")
        baseline = chains.get(self.grid.baseline_name)
        if baseline is not None and not baseline.links:
            reason = next(reversed(baseline.absent.values()))
            self.wrong(f"the baseline is not applicable: {reason}")
        if self.mistakes or baseline is None:
            raise report(self.mistakes, self.grid.file)
        arms = {
            name: replace(chain, changes=baseline_differences(baseline, chain))
            for name, chain in chains.items()
        }
        measured = [arm for arm, chain in chains.items() if chain.links]
        # seed by seed by default: a grid that is stopped has whole rows
        order = [(arm, seed) for seed in self.grid.seeds for arm in measured]
        if self.grid.order == "arms":
            order = [(arm, seed) for arm in measured for seed in self.grid.seeds]
        maker = RunMaker(self.grid, self.named_stages, self.stages)
        compared = tuple(maker.compared(arm, chains[arm], seed) for arm, seed in order)
        return Plan(
            grid=self.grid,
            stages=tuple(self.stages.values()),
            compared=compared,
            arms=arms,
            files={str(path): file_hash(path) for path in sorted(self.files)},
            warnings=tuple(warnings),
        )

    def wrong(self, message: str) -> None:
        """Note a mistake of the grid file."""
        self.mistakes.append(f"{self.grid.file}: {message}")

    def chains(self, progress: Progress | None) -> dict[str, Chain]:
        """Return the chains of all combinations that are not wrong."""
        match, name = self.grid.match, f"{self.grid.file}: match"
        matcher = None if match is None else Matcher(match, name, self.size, self.value)
        parse_chain = ChainParser(self.grid, self.bases(), self.parse, matcher)
        combinations = self.grid.combinations
        chains: dict[str, Chain] = {}
        wrong: dict[str, list[str]] = {}
        for number, combination in enumerate(combinations):
            try:
                chains[combination.name] = parse_chain(combination)
            except UserError as error:
                wrong.setdefault(str(error), []).append(combination.name)
            if progress is not None:
                progress(number + 1, len(combinations))
        for message, names in wrong.items():
            # a mistake of every arm is that of the base, not of an arm
            of_all = len(names) == len(combinations) > 1
            self.mistakes += [message] if of_all else [f"{message} (arm {n})" for n in names]
        return chains

    def bases(self) -> dict[str, Config]:
        """Return the configuration under all arms, by link of the chain."""
        links = self.grid.chain or {"": ()}
        try:
            return {name: self.read((*self.grid.base, *configs)) for name, configs in links.items()}
        except UserError as error:
            raise report([*self.mistakes, str(error)], self.grid.file) from error

    def read(self, files: Sequence[Path]) -> Config:
        """Read files and fold them; take note of them, and of those that they take in."""
        configs = [read(file) for file in files]
        inner = {source.name for config in configs for source in config.sources.values()}
        self.files.update({self.grid.file, *files, *map(Path, inner)})
        return fold(configs)

    def parse_stages(self) -> None:
        """Parse the upstream runs that all arms share."""
        for stage, entry in self.grid.stages.items():
            name = f"stages/{stage}"
            path = self.grid.output / name
            identity = "unknown"
            try:
                config = overridden(self.read(entry.files), entry.overrides)
                parsed = self.parse(config, count=False)
                must_export(parsed.resolved, config)
            except UserError as error:
                self.mistakes.append(f"{error} (stage {stage})")
            else:
                identity = parsed.fingerprint.training
                self.stages[name] = PlannedRun(
                    name=name,
                    arm=stage,
                    seed=None,
                    identity=identity,
                    record=parsed.fingerprint.record(),
                    config=placed(parsed.resolved, path),
                    export=True,
                    needs=self.named_stages(parsed.resolved),
                    family=identity,
                )
            # only now: a stage may name earlier stages, not itself
            weights = self.weights[stage] = str(path / "weights.safetensors")
            self.weights_origins[weights] = f"stage {stage} {identity}"

    def named_stages(self, resolved: dict[str, Any]) -> tuple[str, ...]:
        """Return the stages whose weights a configuration names."""
        named = {value for _, value in leaves(resolved)}
        return tuple(f"stages/{name}" for name, path in self.weights.items() if path in named)

    def parse(self, config: Config, count: bool) -> ParsedConfig:
        """Parse a configuration, which may name stages, and build its model.

        Raises:
            UserError: If it is wrong, or a constructor refuses its arguments.
        """
        config = substitute(config, self.weights)
        self.used.update(self.named_stages(config.values))
        resolved = self.resolve(config)
        check_accumulation(
            import_name(resolved.values["model"]["class_path"]),
            resolved.values["trainer"]["accumulate_grad_batches"],
            config,
        )
        # a stage's weights are written later: the model is built and counted without them
        values = without(config.values, set(self.weights.values()))
        bare = Config(values=values, sources=config.sources)
        try:
            resolved_bare = self.resolve(bare)
        except UserError:  # a part takes no None in the place of a stage's weights
            model, callbacks = None, MetricNames()
        else:
            model = self.build(bare, resolved_bare, count=count)
            callbacks = self.cli.callback_names(bare, resolved_bare)
        module = MetricNames(silent=frozenset({resolved.values["model"]["class_path"]}))
        manifest = self.cli.manifest(config, resolved)
        data = self.cli.data(config, resolved)
        check_selection(resolved.values, data, config)
        if model is not None and model.check_data is not None and values == config.values:
            with construction(config):
                model.check_data(data)
        return ParsedConfig(
            resolved=resolved.values,
            fingerprint=fingerprint_of(resolved.values, self.weights_origins, manifest),
            why_test_data=why_test_data(data),
            model=model,
            metrics=callbacks | (module if model is None else model.metrics),
            counted={} if model is None or model.counted is None else model.counted(data),
        )

    def size(self, config: Config) -> int | None:
        """Return the size that arms are matched by."""
        match = self.grid.match
        assert match is not None, "only a grid that matches asks"
        model = self.parse(config, count=match.by == "flops").model
        if model is None:
            return None
        return model.flops if match.by == "flops" else model.trainable

    def value(self, config: Config, path: tuple[str, ...]) -> object:
        """Return the value at a path of a configuration, defaults included."""
        return at(self.resolve(substitute(config, self.weights)).values, path)

    def refuse_equal_arms(self, chains: dict[str, Chain]) -> None:
        """Refuse arms that come to the same configuration: they would only look like a result."""
        names: dict[str, str] = {}
        for name, chain in chains.items():
            other = names.setdefault(chain.hashes, name) if chain.links else name
            if other == self.grid.baseline_name != name:
                self.wrong(f"{name} changes nothing against the baseline {other}")
            elif other != name:
                self.wrong(f"{name} is the same as {other}")
