"""Parses the chain of configurations of one combination of arms, and tells why it lacks links."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from pretzel.ablation.gridfile.grid import Combination, Grid, Override
from pretzel.ablation.gridfile.run_config import WEIGHTS, overridden, seeded
from pretzel.ablation.identity.fingerprint import Fingerprint
from pretzel.ablation.planning.metric_names import MetricNames
from pretzel.ablation.planning.model_builder import BuiltModel
from pretzel.ablation.planning.size_matching import Matched, Matcher
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
        why_test_data: Why its validation is on test data; None where it is not.
        model: None where it cannot be built without memory.
        metrics: Names of what its module and callbacks log.
        counted: Mean number of samples of each kind that a training step counts, if known.
        tried: The candidate's overrides; empty where nothing is tuned.
    """

    resolved: dict[str, Any]
    fingerprint: Fingerprint
    why_test_data: str | None
    model: BuiltModel | None
    metrics: MetricNames
    counted: Mapping[str, float]
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
    """The links that a combination of arms has, why it lacks others, and how it differs.

    Attributes:
        choices: The arm of each axis.
        links: In order; none where the last is absent: then there is nothing to measure.
        absent: Why links are left out, by name.
        matched: The integer that was solved for so that it is as large as the baseline.
        changes: Its differences to the baseline, a line each.
    """

    choices: dict[str, str]
    links: tuple[ParsedLink, ...]
    absent: dict[str, str]
    matched: Matched | None
    changes: list[str] = field(default_factory=list)

    @property
    def hashes(self) -> str:
        """Equal for chains that train and measure the same."""
        return " ".join(f"{link.name}:{link.hashes}" for link in self.links)

    @property
    def model(self) -> BuiltModel | None:
        """The model that is measured."""
        return self.links[-1].variants[0].model if self.links else None

    @property
    def counted(self) -> dict[str, Mapping[str, float]]:
        """The mean numbers of samples that a training step counts, by link."""
        return {link.name: link.variants[0].counted for link in self.links}

    @property
    def tuned(self) -> dict[str, list[Any]]:
        """The values that are tried, by link and key."""
        return {
            f"{link.name}.{key}" if link.name else key: values
            for link in self.links
            for key, values in link.tuned.items()
        }

    def as_json(self) -> dict[str, Any]:
        """Return it in plain values, without the configurations."""
        model, matched = self.model, asdict(self.matched) if self.matched else None
        own = {name: getattr(self, name) for name in ("choices", "changes", "absent", "counted")}
        parameters = model and {"trainable": model.trainable, "frozen": model.frozen}
        costs = {"parameters": parameters, "flops": model and model.flops}
        return {**own, "matched": matched, "tuned": self.tuned, **costs}


@dataclass
class ChainParser:
    """Parses the chains of a grid.

    Attributes:
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
            try:
                links.append(self._link(combination, name, matched))
            except NotApplicable as error:
                absent[name] = str(error)
        return Chain(
            choices=combination.choices,
            links=tuple(links) if self._last not in absent else (),
            absent=absent,
            matched=matched,
        )

    @property
    def _last(self) -> str:
        return list(self.bases)[-1]

    def _matched(self, combination: Combination) -> Matched | None:
        if self.matcher is None:
            return None
        config = self._config(combination, self._last)
        if combination.name != self.grid.baseline_name:
            return self.matcher(self.bases[self._last], config)
        self.matcher.take_baseline(config)
        return None

    def _link(self, combination: Combination, name: str, matched: Matched | None) -> ParsedLink:
        """Parse a link, with every candidate of what is tuned in it."""
        config = self._config(combination, name)
        if matched is not None and self.matcher is not None:
            config = self.matcher.put(config, matched.after)
        variants: list[ParsedConfig] = []
        for tried in self._candidates(combination, name):
            varied = overridden(config, tried)
            self._refuse_tuned_and_matched(tried, config)
            # FLOPs are shown for an arm, not for its candidates
            parsed = self.parse(varied, name == self._last and not variants)
            if tried and parsed.why_test_data:
                one = tried[0]
                why = f"tune would choose on test data: {parsed.why_test_data}"
                raise UserError(f"{one.source}: {one.key}: {why}")
            if name != self._last:
                must_export(parsed.resolved, varied)
            variants.append(replace(parsed, tried=tried))
        return ParsedLink(name=name, variants=tuple(variants))

    def _candidates(self, combination: Combination, name: str) -> list[tuple[Override, ...]]:
        """Return the overrides of each candidate of a link; one without any if nothing is tuned."""
        tuned = [one for _, arm in combination.arms for one in arm.tune]
        # keys without a link are for the last one
        own = [one for one in tuned if (one.link or self._last) == name]
        each = [[replace(one, value=value) for value in one.value] for one in own]
        return list(itertools.product(*each))

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
        """Return a link's configuration with the seed of the first run.

        Raises:
            NotApplicable: If an arm leaves the link out.
        """
        overrides = combination.overrides(name)
        for one in overrides:
            if not one.key:
                raise NotApplicable(f"{one.source}: left out")
        config = seeded(overridden(self.bases[name], overrides), self.grid.seeds[0])
        if name == next(iter(self.bases)):
            return config
        # the chain says where a later link starts: weights that the base names would be those of
        # another run, in silence
        model = at(config.values, ("model", "class_path"))
        if isinstance(model, str) and WEIGHTS[-1] not in parameters(model):
            why = f"cannot follow another link of the chain: it has no parameter {WEIGHTS[-1]}"
            raise UserError(f"{config.source(('model',))}: model: {model} {why}")
        return override(config, ".".join(WEIGHTS), None, Source(name=f"{self.grid.file}: chain"))


def must_export(resolved: dict[str, Any], config: Config) -> None:
    """Refuse a module that cannot give its weights to others: one without ``export``."""
    module = import_name(resolved["model"]["class_path"])
    if isinstance(module, type) and not issubclass(module, Exports):
        why = "cannot be a stage: it has no method export(path)"
        raise UserError(f"{config.source(('model',))}: model: {module.__name__} {why}")
