"""Parses the chain of configurations of one combination of arms, and tells why it lacks links."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pretzel.ablation.gridfile.grid import Combination, Grid, Override
from pretzel.ablation.gridfile.run_config import WEIGHTS, overridden, seeded
from pretzel.ablation.identity.fingerprint import Fingerprint
from pretzel.ablation.planning.plan import Sizes
from pretzel.ablation.planning.size_matching import Matched, Matcher
from pretzel.ablation.planning.tuning import candidates
from pretzel.ablation.protocols import Exports
from pretzel.errors import NotApplicable, UserError
from pretzel.runs.config.class_paths import import_name
from pretzel.runs.config.explain import parameters
from pretzel.runs.config.overlay import Config, at, locate, override
from pretzel.runs.config.yaml_lines import Source


@dataclass(frozen=True, kw_only=True)
class ParsedConfig:
    """A configuration, parsed, and its model built without memory.

    Attributes:
        resolved: Plain values, defaults included; shared, never modified.
        fingerprint: Everything in it that can change a result.
        sizes: None where the model cannot be built without memory.
        tried: The candidate's overrides; empty where nothing is tuned.
    """

    resolved: dict[str, Any]
    fingerprint: Fingerprint
    sizes: Sizes | None
    tried: tuple[Override, ...] = ()

    @cached_property
    def hashes(self) -> str:
        """Equal for configurations that train and measure the same."""
        return f"{self.fingerprint.training} {self.fingerprint.evaluation}"


@dataclass(frozen=True, kw_only=True)
class ParsedLink:
    """A link of one combination's chain, at the first seed, without a name if the grid has none.

    It has a variant for each candidate of what is tuned in it; one alone where nothing is.
    """

    name: str
    variants: tuple[ParsedConfig, ...]

    @property
    def hashes(self) -> str:
        """Equal for links that train and measure the same."""
        return "|".join(variant.hashes for variant in self.variants)

    @property
    def tuned(self) -> dict[str, list[Any]]:
        """The values that are tried, by key."""
        tuned: dict[str, list[Any]] = {}
        for one in (one for variant in self.variants for one in variant.tried):
            values = tuned.setdefault(one.key, [])
            if one.value not in values:
                values.append(one.value)
        return tuned


@dataclass(frozen=True, kw_only=True)
class Chain:
    """The links that a combination has, and why it lacks the others.

    Attributes:
        links: In order.
        absent: Why links are left out, by name.
        matched: The integer that was solved for so that it is as large as the baseline.
    """

    links: tuple[ParsedLink, ...]
    absent: dict[str, str]
    matched: Matched | None = None

    @property
    def hashes(self) -> str:
        """Equal for chains that train and measure the same."""
        return " ".join(f"{link.name}:{link.hashes}" for link in self.links)

    @property
    def sizes(self) -> Sizes | None:
        """The sizes of the model that is measured."""
        return self.links[-1].variants[0].sizes if self.links else None

    @property
    def tuned(self) -> dict[str, list[Any]]:
        """The values that are tried, by link and key."""
        return {
            f"{link.name}.{key}" if link.name else key: values
            for link in self.links
            for key, values in link.tuned.items()
        }


@dataclass
class ChainParser:
    """Parses the chains of a grid.

    Attributes:
        grid: The grid.
        bases: The configuration under all arms, by link.
        parse: Parses and builds a configuration; counts FLOPs where it is asked to.
        matcher: None where the sizes of arms are left as they are.
    """

    grid: Grid
    bases: Mapping[str, Config]
    parse: Callable[[Config, bool], ParsedConfig]
    matcher: Matcher | None

    def __call__(self, combination: Combination) -> Chain:
        """Return the chain of a combination; the baseline's must be the first.

        Raises:
            UserError: If a configuration is wrong, or cannot be made as large as the baseline.
        """
        links: list[ParsedLink] = []
        absent: dict[str, str] = {}
        try:
            matched = self._matched(combination)
        except NotApplicable:
            matched = None  # its last link is absent, as is found below
        for name in self.bases:
            if reason := self._left_out(combination, name):
                absent[name] = reason
                continue
            try:
                links.append(self._link(combination, name, matched))
            except NotApplicable as error:
                absent[name] = str(error)
        has_last = self._last not in absent  # without it there is nothing to measure
        return Chain(links=tuple(links) if has_last else (), absent=absent, matched=matched)

    @property
    def _last(self) -> str:
        return list(self.bases)[-1]

    def _matched(self, combination: Combination) -> Matched | None:
        if self.matcher is None or self._left_out(combination, self._last):
            return None
        config = self._config(combination, self._last)
        if combination.name != self.grid.baseline_name:
            return self.matcher(self.bases[self._last], config)
        self.matcher.take_baseline(config)
        return None

    def _left_out(self, combination: Combination, name: str) -> str | None:
        for one in combination.overrides(name):
            if one.link == name and not one.key:
                return f"{one.source}: left out"
        return None

    def _link(self, combination: Combination, name: str, matched: Matched | None) -> ParsedLink:
        """Parse a link, with every candidate of what is tuned in it."""
        config = self._config(combination, name)
        if matched is not None and self.matcher is not None:
            config = self.matcher.put(config, matched.after)
        variants: list[ParsedConfig] = []
        for tried in candidates(combination, name, self._last):
            varied = overridden(config, tried)
            self._refuse_tuned_and_matched(tried, config)
            # FLOPs are shown for an arm, not for its candidates
            parsed = self.parse(varied, name == self._last and not variants)
            if name != self._last:
                must_export(parsed.resolved, varied)
            variants.append(replace(parsed, tried=tried))
        return ParsedLink(name=name, variants=tuple(variants))

    def _refuse_tuned_and_matched(self, tried: tuple[Override, ...], config: Config) -> None:
        if self.matcher is None:
            return
        via = locate(config.values, self.matcher.rule.via)
        for one in tried:
            path = locate(config.values, one.key)
            if via[: len(path)] == path:
                why = f"is solved for ({self.matcher.name}), so it cannot be tuned"
                raise UserError(f"{one.source}: {one.key}: {why}")

    def _config(self, combination: Combination, name: str) -> Config:
        """Return a link's configuration with the seed of the first cell."""
        config = overridden(self.bases[name], combination.overrides(name))
        config = seeded(config, self.grid.seeds[0])
        return config if name == next(iter(self.bases)) else self._without_start(config)

    def _without_start(self, config: Config) -> Config:
        """Take out where a later link starts: the chain says so."""
        # weights that the base names would be those of another run, in silence
        name = at(config.values, ("model", "class_path"))
        if isinstance(name, str) and WEIGHTS[-1] not in parameters(name):
            why = f"cannot follow another link of the chain: it has no parameter {WEIGHTS[-1]}"
            raise UserError(f"{config.source(('model',))}: model: {name} {why}")
        return override(config, ".".join(WEIGHTS), None, Source(name=f"{self.grid.file}: chain"))


def must_export(resolved: dict[str, Any], config: Config) -> None:
    """Refuse a module that cannot give its weights to others: one without ``export``."""
    module = import_name(resolved["model"]["class_path"])
    if isinstance(module, type) and not issubclass(module, Exports):
        why = "cannot be a stage: it has no method export(path)"
        raise UserError(f"{config.source(('model',))}: model: {module.__name__} {why}")
