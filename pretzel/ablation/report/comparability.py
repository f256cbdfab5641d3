"""Which arms a metric may be compared across: a table must not rank what has no common scale."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pretzel.ablation.report.comparison import Comparison

_LIKELIHOOD = re.compile(r"nll|bits_per_dim|bpd|likelihood|log_prob")
_DISTANCES = {"fid", "kid"}
_SAMPLING = {"denoiser", "sampler", "guidance"}
_PENALTY = {"norm", "penalty", "loss"}

Signature = dict[str, str]
"""What a metric's scale depends on."""


@dataclass(frozen=True, kw_only=True)
class Comparability:
    """How far one metric may be compared.

    Attributes:
        groups: A number for each arm; only arms of the same number share a scale.
        reason: Why there are several; empty where all arms may be compared.
        facts: What the metric was computed from, where all arms agree and it is known.
    """

    groups: dict[str, int]
    reason: str
    facts: Signature

    @property
    def everywhere(self) -> bool:
        """Whether all arms may be compared."""
        return len(set(self.groups.values())) <= 1


def judge(comparison: Comparison) -> dict[str, Comparability]:
    """Judge every metric of a grid.

    - Likelihoods of images (names that say ``nll``, ``bits_per_dim`` or ``likelihood``, and not
      ``text``): latent space, noise level and image size must be the same.
    - FID and KID: the numbers of generated and of real images must be the same (``<name>_n`` and
      ``<name>_n_real``, or the recorded facts).
    - Every metric: the facts that are recorded of it (``n``, ``extractor``, ``resize``) must be
      the same.
    """
    spaces = _spaces(comparison)
    judged = {}
    for metric in comparison.metrics:
        found = {arm: _facts(comparison, arm, metric.name) for arm in comparison.arms}
        facts = _agreed(found)
        if is_likelihood(metric.name):
            found = {arm: spaces[arm] | found[arm] for arm in comparison.arms}
        judged[metric.name] = Comparability(
            groups=_groups(found, comparison.baseline), reason=_reason(found), facts=facts
        )
    return judged


def is_likelihood(metric: str) -> bool:
    """Tell whether a metric's name says that it is a likelihood of images."""
    return bool(_LIKELIHOOD.search(metric)) and "text" not in re.split(r"[/_]", metric)


def _facts(comparison: Comparison, arm: str, metric: str) -> Signature:
    """Return what the finished cells of an arm have recorded of a metric."""
    found: dict[str, list[str]] = {}
    is_distance = metric.rpartition("/")[2].partition("_")[0] in _DISTANCES
    for cell in comparison.done(arm):
        facts: dict[str, object] = {}
        if is_distance:  # logged beside them: such distances are biased by their n
            counts = {"n": f"{metric}_n", "n_real": f"{metric}_n_real"}
            facts = {key: cell.metrics[n] for key, n in counts.items() if n in cell.metrics}
        for key, value in (facts | cell.facts.get(metric, {})).items():
            shown = f"{value:.10g}" if isinstance(value, int | float) else str(value)
            if shown not in (seen := found.setdefault(key, [])):
                seen.append(shown)
    return {key: " and ".join(sorted(values)) for key, values in found.items()}


def _spaces(comparison: Comparison) -> dict[str, Signature]:
    """Return latent space, noise and image size of each arm.

    From the resolved configuration of a cell, at one seed for all arms (weights trained in a stage
    have the seed in their path); of an arm that has none yet, from what it changes.
    """
    configs: dict[int, dict[str, Signature]] = {seed: {} for seed in comparison.seeds}
    for cell in comparison.runs:
        spec = comparison.folder(cell).spec
        if spec is not None:
            configs[cell.seed][cell.arm] = dict(_scale(spec.get("config")))
    known = max(configs.values(), key=len, default={})
    keys = {key for scale in known.values() for key in scale}
    known = {arm: {key: scale.get(key, "none") for key in keys} for arm, scale in known.items()}
    base = known.get(comparison.baseline, {})
    return {
        arm: known.get(arm) or _changed(base, changes) for arm, changes in comparison.arms.items()
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
    return latent or any({"noise", "sigma"} & found for found in words)


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


def _groups(found: dict[str, Signature], baseline: str) -> dict[str, int]:
    """Number the arms by signature; what is not known is taken to be as in the baseline."""
    keys = sorted({key for signature in found.values() for key in signature})
    usual = {key: found[baseline].get(key, "") for key in keys}
    for key in keys:
        usual[key] = usual[key] or next(s[key] for s in found.values() if key in s)
    numbers: dict[tuple[str, ...], int] = {}
    groups = {}
    for arm, signature in found.items():
        full = tuple(signature.get(key, usual[key]) for key in keys)
        groups[arm] = numbers.setdefault(full, len(numbers))
    return groups


def _reason(found: dict[str, Signature]) -> str:
    """Say in what the arms differ: ``n: 500 (a, b), 100 (c)``; at most two keys."""
    told: list[str] = []
    for key in sorted({key for s in found.values() for key in s}, key=lambda k: (k.count("."), k)):
        if any(key.startswith(f"{other.partition(':')[0]}.") for other in told):
            continue  # the class is told already
        arms: dict[str, list[str]] = {}
        for arm, signature in found.items():
            if key in signature:
                arms.setdefault(signature[key], []).append(arm)
        if len(arms) > 1:
            values = ", ".join(f"{value} ({_named(own)})" for value, own in arms.items())
            told.append(f"{key}: {values}")
    return "; ".join(told[:2]) + ("; and more" if len(told) > 2 else "")


def _named(arms: list[str]) -> str:
    return ", ".join(arms) if len(arms) <= 3 else f"{len(arms)} arms"


def _agreed(found: dict[str, Signature]) -> Signature:
    """Return the facts in which all arms that have them agree."""
    keys = sorted({key for signature in found.values() for key in signature})
    values = {key: {s[key] for s in found.values() if key in s} for key in keys}
    return {key: next(iter(seen)) for key, seen in values.items() if len(seen) == 1}
