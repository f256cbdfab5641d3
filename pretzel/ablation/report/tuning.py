"""What was tried for an arm on validation before the comparison, and what was chosen."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretzel.ablation.ledger import RunFolder, State


@dataclass(frozen=True, kw_only=True)
class CandidateRun:
    """One of the runs that were tried.

    Attributes:
        run: Its name.
        label: What was tried, for example ``model.lr=0.01``.
        state: Where it stands.
        score: The metric of validation; None where it is not done or has not logged it.
    """

    run: str
    label: str
    state: State
    score: float | None

    @property
    def told(self) -> str:
        """The score, or why there is none."""
        if self.state is State.DONE:
            return "not logged" if self.score is None else f"{self.score:.4g}"
        return self.state.value

    @property
    def is_lost(self) -> bool:
        """Whether it can no longer win."""
        return self.state is State.FAILED or (self.score is not None and math.isnan(self.score))


@dataclass(frozen=True, kw_only=True)
class ArmTuning:
    """What was tried in one link of an arm's chain, or in all there is, and what was chosen.

    Attributes:
        link: The link; empty where it is the cells themselves.
        metric: The metric of validation that decided.
        arrow: ``↑`` where more of it is better, ``↓`` where less is.
        seed: The seed of the trials, which is not compared.
        trials: The trials, in order.
        chosen: The label of what was chosen, by the seed of the cell.
    """

    link: str
    metric: str
    arrow: str
    seed: int | None
    trials: tuple[CandidateRun, ...]
    chosen: dict[int, str]

    @property
    def winners(self) -> dict[str, list[int]]:
        """The seeds, by the label that they run with."""
        found: dict[str, list[int]] = {}
        for seed, label in self.chosen.items():
            found.setdefault(label, []).append(seed)
        return found

    def winners_told(self, seeds: int) -> str:
        """Return, for example, ``model.lr=0.1 (all 5 seeds)``.

        Args:
            seeds: Number of the arm's seeds.
        """
        if not self.chosen:
            return "not chosen yet"
        whole = "its seed" if seeds == 1 else f"all {seeds} seeds"
        return "; ".join(
            f"{label} ({whole if len(own) == seeds else ', '.join(f'seed{one}' for one in own)})"
            for label, own in self.winners.items()
        )

    def told(self, seeds: int) -> str:
        """Return it as a sentence without a full stop; arguments as :meth:`winners_told`."""
        tried = "; ".join(f"{trial.label}: {trial.told}" for trial in self.trials)
        at = "" if self.seed is None else f" at seed {self.seed}"
        inside = f"{self.link}: " if self.link else ""
        return (
            f"{inside}{self.winners_told(seeds)}, the best of {len(self.trials)} candidate runs "
            f"by {self.metric} {self.arrow}{at} ({tried})"
        )


def tuned(output: Path, plan: Mapping[str, Any]) -> dict[str, tuple[ArmTuning, ...]]:
    """Return what was tuned, by arm; arms without tuning are left out.

    Args:
        output: The grid's folder.
        plan: What ``plan.json`` holds.
    """
    runs = {cell["name"]: cell for cell in plan["cells"]}
    rule = plan.get("tuning") or {}
    found: dict[str, dict[tuple[str, ...], ArmTuning]] = {}
    for cell in plan["cells"]:
        if cell["seed"] is None:
            continue
        for name in (cell["name"], *before(cell, runs)):
            candidates = runs[name].get("candidates") or {}
            if not candidates:
                continue
            # the same trials decide for every seed
            own = found.setdefault(cell["arm"], {}).setdefault(
                tuple(candidates),
                ArmTuning(
                    link="" if name == cell["name"] else runs[name]["arm"],
                    metric=rule.get("metric", ""),
                    arrow="↑" if rule.get("direction") == "max" else "↓",
                    seed=rule.get("seed"),
                    trials=tuple(
                        _trial(output, runs[run], label, rule.get("metric", ""))
                        for run, label in candidates.items()
                    ),
                    chosen={},
                ),
            )
            label = _chosen(output, runs[name])
            if label is not None:
                own.chosen[cell["seed"]] = label
    return {arm: tuple(own.values()) for arm, own in found.items()}


def before(cell: Mapping[str, Any], runs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the runs whose weights a cell starts from or uses, those that tried things left out.

    Args:
        cell: One of the plan's.
        runs: All of them, by name.
    """
    upstream = [*_needs(cell)]
    for name in upstream:  # grows while it is read
        upstream += [other for other in _needs(runs[name]) if other not in upstream]
    return upstream


def _needs(cell: Mapping[str, Any]) -> list[str]:
    tried = cell.get("candidates") or {}
    return [name for name in cell.get("needs", []) if name not in tried]


def _trial(output: Path, run: Mapping[str, Any], label: str, metric: str) -> CandidateRun:
    state, result = _standing(output, run)
    metrics = result.get("metrics", {}) if state is State.DONE else {}
    score = float(metrics[metric]) if metric in metrics else None
    return CandidateRun(run=run["name"], label=label, state=state, score=score)


def _chosen(output: Path, run: Mapping[str, Any]) -> str | None:
    """Return the label that a run was started with, as the runner has noted it."""
    state, result = _standing(output, run)
    if state in (State.STALE, State.PENDING):
        return None
    note = (result or RunFolder(path=output / run["name"]).spec or {}).get("tuned")
    labels = run["candidates"].values()
    return next((one for one in labels if str(note).startswith(f"{one}, the best of ")), None)


def _standing(output: Path, run: Mapping[str, Any]) -> tuple[State, dict[str, Any]]:
    folder = RunFolder(path=output / run["name"])
    return folder.state(run["identity"], run.get("evaluation")), folder.result or {}
