"""Candidate runs of a tuned arm, tried on validation before the comparison, and the winner."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretzel.ablation.ledger import RunFolder, State


@dataclass(frozen=True, kw_only=True)
class CandidateRun:
    """One of the runs that were tried."""

    run: str
    label: str  # what was tried, for example model.lr=0.01
    state: State
    score: float | None  # on validation; None where it is not done or has not logged it

    @property
    def text(self) -> str:
        """The score, or why there is none."""
        if self.state is State.DONE:
            return "not logged" if self.score is None else f"{self.score:.4g}"
        return self.state.value


@dataclass(frozen=True, kw_only=True)
class ArmTuning:
    """Candidates tried in one stage of an arm (or in its only one), and the chosen one."""

    link: str  # of the chain; empty where it is the compared runs themselves
    metric: str  # of validation, which decided
    arrow: str  # ↑ where more of it is better, ↓ where less is
    seed: int | None  # of the candidates, which is not compared
    candidates: tuple[CandidateRun, ...]
    chosen: dict[int, str]  # label of what was chosen, by the seed of the compared run

    @property
    def winners(self) -> dict[str, list[int]]:
        """The seeds, by the label that they run with."""
        seeds: dict[str, list[int]] = {}
        for seed, label in self.chosen.items():
            seeds.setdefault(label, []).append(seed)
        return seeds

    def winners_text(self, seeds: int) -> str:
        """Return, for example, ``model.lr=0.1 (all 5 seeds)``, of an arm with so many seeds."""
        if not self.chosen:
            return "not chosen yet"
        whole = "its seed" if seeds == 1 else f"all {seeds} seeds"
        return "; ".join(
            f"{label} ({whole if len(own) == seeds else ', '.join(f'seed{one}' for one in own)})"
            for label, own in self.winners.items()
        )

    def text(self, seeds: int) -> str:
        """Return it as a sentence without a full stop, of an arm with so many seeds."""
        tried = "; ".join(f"{candidate.label}: {candidate.text}" for candidate in self.candidates)
        at = "" if self.seed is None else f" at seed {self.seed}"
        inside = f"{self.link}: " if self.link else ""
        return (
            f"{inside}{self.winners_text(seeds)}, the best of {len(self.candidates)} candidate "
            f"runs by {self.metric} {self.arrow}{at} ({tried})"
        )


def tunings(output: Path, plan: Mapping[str, Any]) -> dict[str, tuple[ArmTuning, ...]]:
    """Return what was tuned, by arm, in a folder with that ``plan.json``; other arms left out."""
    runs = {run["name"]: run for run in plan["runs"]}
    rule = plan.get("tuning") or {}
    metric = rule.get("metric", "")
    by_arm: dict[str, dict[tuple[str, ...], ArmTuning]] = {}
    for compared in plan["runs"]:
        if compared["seed"] is None:
            continue
        for name in (compared["name"], *upstream(compared, runs)):
            run = runs[name]
            labels = run.get("candidates") or {}
            if not labels:
                continue
            own = by_arm.setdefault(compared["arm"], {})
            if (candidates := tuple(labels)) not in own:  # the same ones decide for every seed
                own[candidates] = ArmTuning(
                    link="" if run is compared else run["arm"],
                    metric=metric,
                    arrow="↑" if rule.get("direction") == "max" else "↓",
                    seed=rule.get("seed"),
                    candidates=tuple(
                        _candidate(output, runs[one], label, metric)
                        for one, label in labels.items()
                    ),
                    chosen={},
                )
            label = _chosen(output, run)
            if label is not None:
                own[candidates].chosen[compared["seed"]] = label
    return {arm: tuple(own.values()) for arm, own in by_arm.items()}


def upstream(run: Mapping[str, Any], runs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the runs, of all by name, whose weights a run starts from or uses; no candidates."""

    def needs(run: Mapping[str, Any]) -> list[str]:
        candidates = run.get("candidates") or {}
        return [name for name in run.get("needs", []) if name not in candidates]

    names = needs(run)
    for name in names:  # grows while it is read
        names += [other for other in needs(runs[name]) if other not in names]
    return names


def _candidate(output: Path, run: Mapping[str, Any], label: str, metric: str) -> CandidateRun:
    state, result = state_and_result(output, run)
    metrics = result.get("metrics", {}) if state is State.DONE else {}
    score = float(metrics[metric]) if metric in metrics else None
    return CandidateRun(run=run["name"], label=label, state=state, score=score)


def _chosen(output: Path, run: Mapping[str, Any]) -> str | None:
    """Return the label that a run was started with, as the runner has noted it."""
    state, result = state_and_result(output, run)
    if state in (State.STALE, State.PENDING):
        return None
    note = (result or RunFolder(path=output / run["name"]).spec or {}).get("tuned")
    labels = run["candidates"].values()
    return next((one for one in labels if str(note).startswith(f"{one}, the best of ")), None)


def state_and_result(output: Path, run: Mapping[str, Any]) -> tuple[State, dict[str, Any]]:
    """Return where a run of the plan stands, and its result if there is one."""
    folder = RunFolder(path=output / run["name"])
    return folder.state(run["identity"], run.get("evaluation")), folder.result or {}
