"""Comparability of metrics across arms: a table must not rank what has no common scale."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pretzel.ablation.report.comparison import Comparison

_LIKELIHOOD = re.compile(r"nll|bits_per_dim|bpd|likelihood|log_prob")
_DISTANCES = {"fid", "kid"}
_SAMPLING = {"denoiser", "sampler", "guidance"}
_CONDITIONS = _SAMPLING | {"ema"}
"""Facts that arms may differ in on purpose: shown, and no bar to comparing."""
_PENALTY = {"norm", "penalty", "loss"}

Signature = dict[str, str]
"""Values that a metric's scale depends on, by name."""


@dataclass(frozen=True, kw_only=True)
class Comparability:
    """How far one metric may be compared."""

    scales: dict[str, Signature]  # of each arm; only arms with equal ones may be compared
    reason: str  # why there are several; empty where all arms may be compared
    facts: Signature  # what the metric was computed from, where it is known and no bar

    @property
    def everywhere(self) -> bool:
        """Whether all arms may be compared."""
        first, *others = self.scales.values()
        return all(scale == first for scale in others)


def judge(comparison: Comparison) -> dict[str, Comparability]:
    """Judge every metric of a grid.

    - Likelihoods of images (names that say ``nll``, ``bits_per_dim`` or ``likelihood``, and not
      ``text``): latent space, noise level and image size must be the same.
    - FID and KID: the numbers of generated and of real images must be the same (``<name>_n`` and
      ``<name>_n_real``, or the recorded facts).
    - Every metric: the facts that are recorded of it (``n``, ``extractor``, ``resize``) must be
      the same; those that say how images were sampled are only shown, with their arms where they
      differ.
    """
    spaces = _spaces(comparison)
    judged = {}
    for metric in comparison.metrics:
        signatures = {arm: _facts(comparison, arm, metric.name) for arm in comparison.arms}
        values = {key: [*arms] for key, arms in sorted(_arms_by_value(signatures).items())}
        facts = {key: own[0] for key, own in values.items() if len(own) == 1}
        facts |= {
            key: ", ".join(f"{value} ({_names(arms)})" for value, arms in by_value.items())
            for key, by_value in _arms_by_value(signatures).items()
            if key in _CONDITIONS and len(by_value) > 1
        }
        signatures = {
            arm: {key: value for key, value in own.items() if key not in _CONDITIONS}
            for arm, own in signatures.items()
        }
        if is_likelihood(metric.name):
            signatures = {arm: spaces[arm] | own for arm, own in signatures.items()}
        usual: Signature = {}  # what an arm does not tell is taken to be as in the baseline
        for signature in signatures.values():  # of which the baseline's is the first
            usual = signature | usual
        judged[metric.name] = Comparability(
            scales={arm: usual | own for arm, own in signatures.items()},
            reason=_reason(signatures),
            facts=facts,
        )
    return judged


def is_likelihood(metric: str) -> bool:
    """Tell whether a metric's name says that it is a likelihood of images."""
    return bool(_LIKELIHOOD.search(metric)) and "text" not in re.split(r"[/_]", metric)


def _facts(comparison: Comparison, arm: str, metric: str) -> Signature:
    """Return what the finished runs of an arm have recorded of a metric."""
    texts: dict[str, set[str]] = {}
    is_distance = metric.rpartition("/")[2].partition("_")[0] in _DISTANCES
    for run in comparison.done(arm):
        facts: dict[str, object] = {}
        if is_distance:  # logged beside them: such distances are biased by their n
            counts = {"n": f"{metric}_n", "n_real": f"{metric}_n_real"}
            facts = {key: run.metrics[n] for key, n in counts.items() if n in run.metrics}
        for key, value in (facts | run.facts.get(metric, {})).items():
            text = f"{value:.10g}" if isinstance(value, int | float) else str(value)
            texts.setdefault(key, set()).add(text)
    return {key: " and ".join(sorted(values)) for key, values in texts.items()}


def _spaces(comparison: Comparison) -> dict[str, Signature]:
    """Return latent space, noise and image size of each arm.

    From the resolved configuration of a run, at one seed for all arms (weights trained in a stage
    have the seed in their path); of an arm that has none yet, from what it changes.
    """
    by_seed: dict[int, dict[str, Signature]] = {seed: {} for seed in comparison.seeds}
    for run in comparison.runs:
        spec = comparison.folder(run).spec
        if spec is not None:
            by_seed[run.seed][run.arm] = dict(_scale(spec.get("config")))
    scales = max(by_seed.values(), key=len, default={})  # the seed of which most arms have one
    keys = {key for scale in scales.values() for key in scale}
    scales = {arm: {key: scale.get(key, "none") for key in keys} for arm, scale in scales.items()}
    base = scales.get(comparison.baseline, {})
    return {
        arm: scales.get(arm) or _changed(base, changes) for arm, changes in comparison.arms.items()
    }


def _scale(node: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Yield the entries of a configuration that a likelihood's scale depends on."""
    if isinstance(node, dict):
        for key, value in node.items():
            inner = path if key == "init_args" else (*path, str(key))
            yield from _scale(value, inner)
    elif _matters(path):
        if path[-1] == "class_path":
            yield ".".join(path[:-1]), str(node).rpartition(".")[2]
        else:
            yield ".".join(path), str(node)


def _matters(path: tuple[str, ...]) -> bool:
    if not path or path[0] not in ("model", "data") or _SAMPLING & set(path):
        return False
    if path[0] == "data":
        return path[-1] == "image_size"
    words = [set(part.split("_")) for part in path]
    latent = any(part.startswith("latent") and not _PENALTY & set(part.split("_")) for part in path)
    return latent or any({"noise", "sigma"} & own for own in words)


def _changed(base: Signature, changes: list[str]) -> Signature:
    """Return a scale with an arm's changes, ``key: old -> new``, perhaps behind ``stage: ``."""
    scale = dict(base)
    for change in changes:
        for part in change.split(": "):
            if _matters(tuple(part.split("."))):
                new = change.rpartition(" -> ")[2]
                if new != scale.get(part):  # a class takes its arguments with it
                    scale = {k: v for k, v in scale.items() if not k.startswith(f"{part}.")}
                scale[part] = new
    return scale


def _arms_by_value(signatures: dict[str, Signature]) -> dict[str, dict[str, list[str]]]:
    """Return, by key of the signatures and its value, the arms that have it."""
    arms: dict[str, dict[str, list[str]]] = {}
    for arm, signature in signatures.items():
        for key, value in signature.items():
            arms.setdefault(key, {}).setdefault(value, []).append(arm)
    return arms


def _reason(signatures: dict[str, Signature]) -> str:
    """Say in what the arms differ: ``n: 500 (a, b), 100 (c)``; at most two keys."""
    reasons: dict[str, str] = {}
    by_key = _arms_by_value(signatures)
    for key in sorted(by_key, key=lambda key: (key.count("."), key)):
        if any(key.startswith(f"{other}.") for other in reasons):
            continue  # another class has other arguments: that it is another says enough
        if len(by_key[key]) > 1:
            values = ", ".join(f"{value} ({_names(own)})" for value, own in by_key[key].items())
            reasons[key] = f"{key}: {values}"
    return "; ".join([*reasons.values()][:2]) + ("; and more" if len(reasons) > 2 else "")


def _names(arms: list[str]) -> str:
    return ", ".join(arms) if len(arms) <= 3 else f"{len(arms)} arms"
