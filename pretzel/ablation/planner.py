"""Parse every cell with the real parser before anything trains; report all mistakes at once."""

import itertools
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

from jsonargparse import Namespace

from pretzel.ablation.cellconfig import (
    WEIGHTS,
    paths_in,
    placed,
    put,
    seeded,
    set_seed,
    substitute,
    with_arms,
    without,
)
from pretzel.ablation.classes import import_name
from pretzel.ablation.explain import parameters
from pretzel.ablation.grid import Combination, Grid, Link
from pretzel.ablation.gridfile import report
from pretzel.ablation.identity import changes, essence, identity
from pretzel.ablation.overlay import Config, at, fold, override, read
from pretzel.ablation.plan import Cell, Exports, Plan
from pretzel.ablation.yamlfile import Source
from pretzel.cli import ParserOnly
from pretzel.errors import NotApplicable, UserError
from pretzel.meta import built_without_memory


def make(grid: Grid) -> Plan:
    """Parse all cells of a grid and build their models without memory; nothing is written.

    Args:
        grid: From :func:`pretzel.ablation.gridfile.load`.

    Raises:
        UserError: With all mistakes of all cells in one report.
    """
    return _Planner(grid).plan()


@cache
def _parser() -> ParserOnly:
    return ParserOnly()  # half a second to build


@dataclass(frozen=True, kw_only=True)
class _Parsed:
    """A link of one combination's chain, at the first seed."""

    link: str
    resolved: dict[str, Any]
    essential: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Chain:
    """The links that a combination has, and why it lacks the others."""

    links: tuple[_Parsed, ...]
    absent: dict[str, str]

    @property
    def mark(self) -> str:
        return " ".join(f"{one.link}:{identity(one.essential)}" for one in self.links)


@dataclass
class _Planner:
    grid: Grid
    parser: ParserOnly = field(default_factory=_parser)
    mistakes: list[str] = field(default_factory=list)
    weights: dict[str, str] = field(default_factory=dict)
    upstream: dict[str, str] = field(default_factory=dict)
    stages: dict[str, Cell] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def plan(self) -> Plan:
        self.parse_stages()
        combinations = list(self.grid.combinations())
        bases = self.bases()
        chains: dict[str, _Chain] = {}
        wrong: dict[str, list[str]] = {}
        for combination in combinations:
            try:
                chains[combination.name] = self.chain(bases, combination)
            except UserError as error:
                wrong.setdefault(str(error), []).append(combination.name)
        for message, names in wrong.items():
            # What every cell is refused for is no arm's mistake.
            every = len(names) == len(combinations) > 1
            self.mistakes += [message] if every else [f"{message} (cell {n})" for n in names]
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
        cells = [self.cell(arm, chains[arm], seed) for arm, seed in self.order(chains)]
        return Plan(
            grid=self.grid,
            stages=tuple(self.stages.values()),
            cells=tuple(cell for cell in cells if cell is not None),
            changes={name: _changes(baseline, chain) for name, chain in chains.items()},
            choices={combination.name: combination.choices for combination in combinations},
            absent={name: chain.absent for name, chain in chains.items()},
        )

    def order(self, arms: Iterable[str]) -> list[tuple[str, int]]:
        pairs = list(itertools.product(arms, self.grid.seeds))
        if self.grid.order == "seeds":
            pairs.sort(key=lambda pair: self.grid.seeds.index(pair[1]))
        return pairs

    def bases(self) -> dict[str, Config]:
        """Return the configuration under all arms, by link of the chain."""
        links = self.grid.chain or (Link(name="", configs=()),)
        try:
            return {
                link.name: fold([read(file) for file in (*self.grid.base, *link.configs)])
                for link in links
            }
        except UserError as error:
            raise report([*self.mistakes, str(error)], self.grid.file) from error

    def parse_stages(self) -> None:
        for stage in self.grid.stages:
            name = f"stages/{stage.name}"
            path = self.grid.output / name
            try:
                config = fold([read(file) for file in stage.configs])
                resolved, essential = self.parse(config)
                self.must_export(resolved, config)
            except UserError as error:
                self.mistakes.append(f"{error} (stage {stage.name})")
                identifier = "unknown"
            else:
                identifier = identity(essential)
                self.stages[name] = Cell(
                    name=name,
                    arm=stage.name,
                    seed=None,
                    identity=identifier,
                    config=placed(resolved, path),
                    export=True,
                    needs=self.named_stages(resolved),
                )
            # only now: a stage may name earlier stages, not itself
            self.weights[stage.name] = str(path / "weights.safetensors")
            self.upstream[self.weights[stage.name]] = f"stage {stage.name} {identifier}"

    def must_export(self, resolved: dict[str, Any], config: Config) -> None:
        module = import_name(resolved["model"]["class_path"])
        if isinstance(module, type) and not issubclass(module, Exports):
            raise UserError(
                f"{config.source(('model',))}: model: {module.__name__} cannot be a stage: "
                "it has no method export(path)"
            )

    def named_stages(self, resolved: dict[str, Any]) -> tuple[str, ...]:
        paths = paths_in(resolved, set(self.weights.values()))
        return tuple(f"stages/{name}" for name, path in self.weights.items() if path in paths)

    def chain(self, bases: dict[str, Config], combination: Combination) -> _Chain:
        """Parse the links of a combination, each with the seed of the first cell.

        Raises:
            UserError: If one is wrong.
        """
        links: list[_Parsed] = []
        absent: dict[str, str] = {}
        last = list(bases)[-1]
        for name, base in bases.items():
            left_out = [o for o in combination.overrides(name) if o.link == name and not o.key]
            if left_out:
                absent[name] = f"{left_out[0].source}: left out"
                continue
            config = seeded(with_arms(base, combination, name), self.grid.seeds[0])
            if name != next(iter(bases)):
                config = self.without_start(config)
            try:
                resolved, essential = self.parse(config)
            except NotApplicable as error:
                absent[name] = str(error)
                continue
            if name != last:
                self.must_export(resolved, config)
            links.append(_Parsed(link=name, resolved=resolved, essential=essential))
        if last in absent:
            links = []  # what is measured does not exist
        return _Chain(links=tuple(links), absent=absent)

    def without_start(self, config: Config) -> Config:
        """Take out where a later link starts: the chain says so."""
        name = at(config.values, ("model", "class_path"))
        if isinstance(name, str) and WEIGHTS[-1] not in parameters(name):
            raise UserError(
                f"{config.source(('model',))}: model: {name} cannot follow another link of the "
                f"chain: it has no parameter {WEIGHTS[-1]}"
            )
        return override(config, ".".join(WEIGHTS), None, Source(name=f"{self.grid.file}: chain"))

    def parse(self, config: Config) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the resolved configuration and its essence, after building the model."""
        values = substitute(config.values, self.weights, config)
        self.used |= paths_in(values, set(self.weights.values()))
        config = Config(values=values, sources=config.sources)
        namespace = self.parser.parse("fit", config)
        resolved = self.parser.resolved("fit", namespace)
        self.try_to_build(self.before_stages(namespace, config))
        return resolved, essence(resolved, self.upstream)

    def before_stages(self, namespace: Namespace, config: Config) -> Namespace | None:
        """Return what can be built before the stages have run: without their weights.

        None where a part takes no None in the place of a stage's weights.
        """
        paths = set(self.weights.values())
        values = without(config.values, paths)
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
        built_without_memory(partial(self.parser.build_model, "fit", namespace))

    def cell(self, arm: str, chain: _Chain, seed: int) -> Cell | None:
        """Return the cell at the end of a chain; what stands before it joins the stages.

        Two chains with the same beginning share it: its name is its identity.
        """
        cell: Cell | None = None
        for one in chain.links:
            resolved, essential = deepcopy(one.resolved), deepcopy(one.essential)
            needs = self.named_stages(resolved)
            for values in (resolved, essential):
                set_seed(values, seed)
            if cell is not None:
                start = self.grid.output / cell.name / "weights.safetensors"
                put(resolved, WEIGHTS, str(start))
                put(essential, WEIGHTS, f"{cell.arm} {cell.identity}")
                needs += (cell.name,)
            mark = identity(essential)
            is_last = one is chain.links[-1]
            shared = f"stages/{one.link}-seed{seed}-{mark[:8]}"
            name = f"{arm}/seed{seed}" if is_last else shared
            cell = Cell(
                name=name,
                arm=arm if is_last else one.link,
                seed=seed if is_last else None,
                identity=mark,
                config=placed(resolved, self.grid.output / name),
                export=not is_last,
                needs=needs,
            )
            if not is_last:
                cell = self.stages.setdefault(name, cell)
        return cell

    def refuse_equal_arms(self, chains: dict[str, _Chain]) -> None:
        """Refuse arms that come to the same configuration: they would only look like a result."""
        seen: dict[str, str] = {}
        for name, chain in chains.items():
            if not chain.links:
                continue
            mark = chain.mark
            if mark not in seen:
                seen[mark] = name
            elif seen[mark] == self.grid.baseline_name:
                self.mistakes.append(
                    f"{self.grid.file}: {name} changes nothing against the baseline {seen[mark]}"
                )
            else:
                self.mistakes.append(f"{self.grid.file}: {name} is the same as {seen[mark]}")


def _changes(baseline: _Chain, chain: _Chain) -> list[str]:
    """Return what differs from the baseline, with the links where it does if not in all."""
    base = {one.link: one.essential for one in baseline.links}
    both = [one for one in chain.links if one.link in base]
    where: dict[str, list[str]] = {}
    for one in both:
        for line in changes(base[one.link], one.essential):
            where.setdefault(line, []).append(one.link)
    return [
        line if len(links) == len(both) else f"{', '.join(links)}: {line}"
        for line, links in where.items()
    ] + [f"no {link}" for link in chain.absent if link in base]
