"""Makes the runs of a grid of parsed chains: shared runs stand once, tuned ones are tried first."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from pretzel.ablation.gridfile.grid import Grid
from pretzel.ablation.gridfile.run_config import WEIGHTS, placed, put, with_seed
from pretzel.ablation.identity.fingerprint import hashed
from pretzel.ablation.planning.parsed_chains import Chain, ParsedConfig
from pretzel.ablation.planning.plan import Candidate, PlannedRun
from pretzel.ablation.planning.tuning import label, run_name


@dataclass
class RunMaker:
    """Makes the runs of a grid.

    Attributes:
        stages_in: Returns the stages that a configuration names.
        upstream: Runs that others need, by name: stages, links of chains, tuning runs.
    """

    grid: Grid
    stages_in: Callable[[dict[str, Any]], tuple[str, ...]]
    upstream: dict[str, PlannedRun]
    _candidate_runs: dict[tuple[str, int], list[PlannedRun]] = field(default_factory=dict)
    _trainers: dict[str, str] = field(default_factory=dict)  # names of compared runs, by identity

    def compared(self, arm: str, chain: Chain, seed: int) -> PlannedRun:
        """Return the run at the end of a combination's chain; upstream runs join the others.

        Two chains with the same beginning share it: its name is its identity.
        """
        return self._run(arm, chain, len(chain.links) - 1, seed)

    def _run(self, arm: str, chain: Chain, index: int, seed: int) -> PlannedRun:
        """Return the run of a link, after those before it."""
        link, is_last = chain.links[index], index == len(chain.links) - 1
        before = self._run(arm, chain, index - 1, seed) if index else None
        started = [self._started(variant, seed, before) for variant in link.variants]
        tried = self._try(arm, chain, index) if len(link.variants) > 1 else []
        tuning = self.grid.tuning if tried else None
        first = started[0].fingerprint
        identity = first.training
        if tuning is not None:  # of all that it may choose, and of how it chooses
            own = [one.fingerprint.training for one in started]
            pairs = list(zip([run.identity for run in tried], own, strict=True))
            rule = [tuning.metric, tuning.direction]
            identity = hashed({"chosen by": rule, "candidates": pairs})
        name = f"{arm}/seed{seed}" if is_last else f"stages/{link.name}-seed{seed}-{identity[:8]}"
        # arms share the beginnings of their chains: the same identity is the same run
        if name in self.upstream:
            return self.upstream[name]
        configs = [placed(one.resolved, self.grid.output / name) for one in started]
        run = PlannedRun(
            name=name,
            arm=arm if is_last else link.name,
            seed=seed if is_last else None,
            identity=identity,
            evaluation=first.evaluation if is_last else None,
            record=first.record(),
            config=configs[0],
            export=not is_last,
            needs=self._needs(configs, before, *tried),
            family=link.hashes,
            candidates=tuple(
                Candidate(run=run.name, label=label(variant.tried), config=config)
                for run, variant, config in zip(tried, link.variants, configs, strict=bool(tried))
            ),
            tuning=tuning,
            trained_by=self._trainer(identity) if is_last else None,
        )
        if not is_last:
            self.upstream[name] = run
        elif run.trained_by is None:
            self._trainers[identity] = name
        return run

    def _trainer(self, identity: str) -> str | None:
        """Return the compared run that trains what another one only measures in another way.

        Validation is a part of training: where the table has its metrics, each run has its own.
        """
        is_of_test = all(metric.name.startswith("test") for metric in self.grid.metrics)
        return self._trainers.get(identity) if is_of_test else None

    def _try(self, arm: str, chain: Chain, index: int) -> list[PlannedRun]:
        """Return the runs that try the candidates of a link, with a seed of their own."""
        if (arm, index) in self._candidate_runs:
            return self._candidate_runs[arm, index]
        assert self.grid.tuning is not None, "the grid file says how arms are tuned"
        assert self.grid.tuning.seed is not None, "and where it does not say the seed, its reader"
        # one seed for all: the candidates are tried once, and every run chooses among them
        seed, link = self.grid.tuning.seed, chain.links[index]
        before = self._run(arm, chain, index - 1, seed) if index else None
        runs = []
        for variant in link.variants:
            started = self._started(variant, seed, before)
            identity = started.fingerprint.training
            name = run_name(arm, variant.tried, identity)
            config = placed(started.resolved, self.grid.output / name)
            self.upstream[name] = PlannedRun(
                name=name,
                arm=arm,
                seed=None,
                identity=identity,
                record=started.fingerprint.record(),
                config=config,
                needs=self._needs([config], before),
                family=variant.hashes,
            )
            runs.append(self.upstream[name])
        self._candidate_runs[arm, index] = runs
        return runs

    def _started(self, parsed: ParsedConfig, seed: int, before: PlannedRun | None) -> ParsedConfig:
        """Return a link's configuration with a seed and the run before it."""
        resolved = with_seed(parsed.resolved, seed)
        identity = with_seed(parsed.fingerprint.config, seed)
        if before is not None:
            weights = self.grid.output / before.name / "weights.safetensors"
            resolved = put(resolved, WEIGHTS, str(weights))
            # a path is no identity: the weights count by the run that they come from
            identity = put(identity, WEIGHTS, f"{before.arm} {before.identity}")
        fingerprint = replace(parsed.fingerprint, config=identity)
        return replace(parsed, resolved=resolved, fingerprint=fingerprint)

    def _needs(self, configs: list[dict[str, Any]], *runs: PlannedRun | None) -> tuple[str, ...]:
        names = [name for config in configs for name in self.stages_in(config)]
        return tuple(dict.fromkeys([*names, *(run.name for run in runs if run is not None)]))
