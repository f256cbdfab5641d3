"""Twins: runs that claim to differ, and whose weights or results are equal bit for bit."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pretzel.ablation.ledger import RunFolder, State

_MOST_CHANGES = 3
"""Changes of an arm that a sentence names."""
_Run = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Traces:
    """Hashes of what a run has trained and measured, as far as it has come; None before.

    Attributes:
        first: Steps of training and the hash of the weights after them.
        final: Hash of the weights after training.
        measured: Hash of the results of a test; None too where no sample's are kept.
    """

    first: tuple[int, str] | None = None
    final: str | None = None
    measured: str | None = None

    @classmethod
    def read(cls, folder: RunFolder, state: State, identity: str) -> "Traces":
        """Read the traces of a run in a state, if they are of the training that is asked for."""
        if state in (State.DONE, State.TRAINED):
            return cls.of(folder.result or {})
        if state not in (State.RUNNING, State.INTERRUPTED, State.FAILED):
            return cls()
        is_same = (folder.spec or {}).get("identity") == identity  # a runner may have another plan
        return cls.of(folder.progress) if is_same else cls()

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Traces":
        """Return the traces in the content of ``result.json`` or ``progress.json``."""
        weights = values.get("weights") or {}
        first = (weights["step"], weights["first"]) if "first" in weights else None
        return cls(first=first, final=weights.get("final"), measured=values.get("measured"))


def twin_sentences(plan: Mapping[str, Any], traces: Mapping[str, Traces]) -> list[str]:
    """Return which runs train or measure the same thing though they claim not to.

    Runs of other seeds are compared as well: a seed that changes nothing makes error bars zero.

    Args:
        plan: The content of ``plan.json``.
        traces: By name of the run; those left out have none.
    """
    runs = [run for run in plan["runs"] if run["name"] in traces]
    seeds: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    for how, twins in (*_in_training(runs, traces), *_in_evaluation(runs, traces)):
        seed = twins[0]["seed"]
        if seed is not None and {run["seed"] for run in twins} == {seed}:
            # the same arms at other seeds share a sentence
            seeds[how, tuple(run["arm"] for run in twins)].append(f"seed{seed}")
        else:
            seeds[how, tuple(run["name"] for run in twins)] = []
    return [_sentence(names, own, how, plan["arms"]) for (how, names), own in seeds.items()]


def _in_training(
    runs: Sequence[_Run], traces: Mapping[str, Traces]
) -> Iterator[tuple[str, list[_Run]]]:
    """Yield groups of runs of different trainings whose weights are equal, and since when."""
    starts: dict[tuple[int, str] | str, list[_Run]] = defaultdict(list)
    for run in runs:
        own = traces[run["name"]]
        if start := own.first or own.final:  # a training may have fewer steps
            starts[start].append(run)
    for start, group in starts.items():
        after = f"after {start[0]} steps" if isinstance(start, tuple) else ""
        ends: dict[str, list[_Run]] = defaultdict(list)
        for run in group:
            if final := traces[run["name"]].final:
                ends[final].append(run)
        for equal in ends.values():
            if _differ(equal, "identity"):
                when = f"{after} and at the end".removeprefix(" and ")
                yield f"train the same thing: their weights are equal bit for bit, {when}", equal
        is_open = sum(map(len, ends.values())) < len(group)
        # where two have ended apart, others may do so too
        if is_open and len(ends) < 2 and _differ(group, "identity"):
            yield (
                f"have the same weights bit for bit {after} of training: what they differ in has "
                "changed nothing so far",
                group,
            )


def _in_evaluation(
    runs: Sequence[_Run], traces: Mapping[str, Traces]
) -> Iterator[tuple[str, list[_Run]]]:
    """Yield groups of runs of different evaluations that have measured the same of one training."""
    groups: dict[tuple[str | None, str], list[_Run]] = defaultdict(list)
    for run in runs:
        own = traces[run["name"]]
        if own.measured:
            groups[own.final, own.measured].append(run)
    for group in groups.values():
        if _differ(group, "evaluation"):
            yield "measure the same thing: every sample has the same result, bit for bit", group


def _differ(runs: Sequence[_Run], key: str) -> bool:
    return len({run.get(key) for run in runs}) > 1


def _sentence(
    names: Sequence[str], seeds: Sequence[str], how: str, arms: Mapping[str, Mapping[str, Any]]
) -> str:
    *most, last = names
    at = f" ({', '.join(seeds)})" if seeds else ""
    changes = {name: arms.get(name, {}).get("changes", []) for name in names}
    common = set.intersection(*map(set, changes.values()))
    claims = []
    for name in names:
        if own := [change for change in changes[name] if change not in common]:
            claims.append(f"{name} claims {', '.join(own[:_MOST_CHANGES])}")
    told = f" ({'; '.join(claims)})" if claims else ""
    return f"{', '.join(most)} and {last}{at} {how}{told}"
