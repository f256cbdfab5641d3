"""The cells of a grid, of parsed chains: what they share runs once; what is tuned is tried."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pretzel.ablation.gridfile.grid import Grid
from pretzel.ablation.gridfile.run_config import WEIGHTS, placed, put, with_seed
from pretzel.ablation.gridfile.schema import Tuning
from pretzel.ablation.identity.fingerprint import Fingerprint, hashed
from pretzel.ablation.planning.parsed_chains import Chain, Parsed
from pretzel.ablation.planning.plan import Candidate, PlannedRun
from pretzel.ablation.planning.tuning import label, run_name


@dataclass
class Cells:
    """Makes the runs of a grid.

    Attributes:
        grid: The grid.
        stages_in: The stages that a configuration names.
        upstream: Runs that others need, by name: stages, links of chains, tuning runs.
    """

    grid: Grid
    stages_in: Callable[[dict[str, Any]], tuple[str, ...]]
    upstream: dict[str, PlannedRun]
    _tried: dict[tuple[str, int], list[PlannedRun]] = field(default_factory=dict)

    def cell(self, arm: str, chain: Chain, seed: int) -> PlannedRun | None:
        """Return the cell at the end of a chain; what stands before it joins the upstream runs.

        Two chains with the same beginning share it: its name is its identity.

        Args:
            arm: Name of the combination.
            chain: Its chain.
            seed: The cell's.
        """
        return self._run(arm, chain, len(chain.links) - 1, seed) if chain.links else None

    def _run(self, arm: str, chain: Chain, index: int, seed: int) -> PlannedRun:
        """Return the run of a link, after those before it."""
        link, is_last = chain.links[index], index == len(chain.links) - 1
        before = self._run(arm, chain, index - 1, seed) if index else None
        started = [self._started(variant, seed, before) for variant in link.variants]
        tried = self._try(arm, chain, index) if len(link.variants) > 1 else []
        tuning = self.grid.tuning if tried else None
        marks = [fingerprint.training for _, fingerprint in started]
        mark = marks[0] if tuning is None else self._identity_of_all(tuning, tried, marks)
        name = f"{arm}/seed{seed}" if is_last else f"stages/{link.name}-seed{seed}-{mark[:8]}"
        if name in self.upstream:
            return self.upstream[name]
        configs = [placed(resolved, self.grid.output / name) for resolved, _ in started]
        cell = PlannedRun(
            name=name,
            arm=arm if is_last else link.name,
            seed=seed if is_last else None,
            identity=mark,
            evaluation=started[0][1].evaluation if is_last else None,
            record=started[0][1].record(),
            config=configs[0],
            export=not is_last,
            tests=is_last,
            needs=self._needs(configs, before, tried),
            family=link.mark,
            candidates=tuple(
                Candidate(run=run.name, label=label(variant.tried), config=config)
                for run, variant, config in zip(tried, link.variants, configs, strict=bool(tried))
            ),
            tuning=tuning,
        )
        if not is_last:
            self.upstream[name] = cell
        return cell

    def _try(self, arm: str, chain: Chain, index: int) -> list[PlannedRun]:
        """Return the runs that try the candidates of a link, with a seed of their own."""
        if (arm, index) in self._tried:
            return self._tried[arm, index]
        assert self.grid.tuning is not None, "the grid file says how arms are tuned"
        assert self.grid.tuning.seed is not None, "and where it does not say the seed, its reader"
        seed, link = self.grid.tuning.seed, chain.links[index]
        before = self._run(arm, chain, index - 1, seed) if index else None
        runs = []
        for variant in link.variants:
            resolved, fingerprint = self._started(variant, seed, before)
            mark = fingerprint.training
            name = run_name(arm, variant.tried, mark)
            config = placed(resolved, self.grid.output / name)
            self.upstream[name] = PlannedRun(
                name=name,
                arm=arm,
                seed=None,
                identity=mark,
                record=fingerprint.record(),
                config=config,
                tests=False,
                needs=self._needs([config], before, []),
                family=variant.mark,
            )
            runs.append(self.upstream[name])
        self._tried[arm, index] = runs
        return runs

    def _started(
        self, variant: Parsed, seed: int, before: PlannedRun | None
    ) -> tuple[dict[str, Any], Fingerprint]:
        """Return a link's configuration and what of it matters, with its seed and its start."""
        resolved, fingerprint = (
            with_seed(variant.resolved, seed),
            variant.fingerprint.with_seed(seed),
        )
        if before is None:
            return resolved, fingerprint
        start = self.grid.output / before.name / "weights.safetensors"
        name = f"{before.arm} {before.identity}"
        return put(resolved, WEIGHTS, str(start)), fingerprint.starting_from(WEIGHTS, name)

    def _needs(
        self, configs: list[dict[str, Any]], before: PlannedRun | None, tried: list[PlannedRun]
    ) -> tuple[str, ...]:
        names = [name for config in configs for name in self.stages_in(config)]
        names += [run.name for run in (*([before] if before else []), *tried)]
        return tuple(dict.fromkeys(names))

    def _identity_of_all(self, tuning: Tuning, tried: list[PlannedRun], marks: list[str]) -> str:
        """Return the identity of a tuned run: of all that it may choose, and how it chooses."""
        return hashed(
            {
                "chosen by": [tuning.metric, tuning.direction],
                "candidates": [
                    [run.identity, mark] for run, mark in zip(tried, marks, strict=True)
                ],
            }
        )
