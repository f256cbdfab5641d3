"""Combinations of arms: product, zip or one at a time, less excluded ones, with included ones."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

from pretzel.ablation.gridfile.grid import Axis, Combination
from pretzel.ablation.gridfile.schema import GridFile
from pretzel.errors import did_you_mean
from pretzel.runs.config.yaml_lines import Key

Wrong = Callable[[Key, str], None]
ArmChoice = Mapping[str, str | list[str]]
Names = tuple[str, ...]


def combinations(axes: Sequence[Axis], content: GridFile, wrong: Wrong) -> tuple[Combination, ...]:
    """Return the combinations of a grid, the baseline first; none if that does not exist.

    ``wrong`` is called with the key and the text of each mistake.
    """
    baseline, combine = content.baseline, content.combine
    arms = {axis.name: {arm.name: arm for arm in axis.arms} for axis in axes}
    has_arms = _exist(baseline, arms, ("baseline",), wrong)
    for axis in (missing := arms.keys() - baseline.keys()):
        wrong(("baseline",), f"needs an arm of axis {axis}")
    if missing or not has_arms:
        return ()
    base = tuple(baseline[axis] for axis in arms)

    def completed(choice: ArmChoice) -> Iterable[Names]:
        return itertools.product(*(_listed(choice.get(a, baseline[a])) for a in arms))

    def matches(names: Names, choice: ArmChoice) -> bool:
        pairs = zip(arms, names, strict=True)
        return all(name in _listed(choice.get(axis, name)) for axis, name in pairs)

    rows: dict[Names, None] = {}
    if combine == "one_at_a_time":
        for axis, own in arms.items():
            rows |= dict.fromkeys(n for name in own for n in completed({axis: name}))
    elif combine == "zip":
        rows = dict.fromkeys(zip(*arms.values()))  # noqa: B905  # told as a mistake below
        if len({len(own) for own in arms.values()}) > 1:
            sizes = ", ".join(f"{axis} has {len(own)}" for axis, own in arms.items())
            message = "zip pairs the arms in order and needs as many on every axis"
            wrong(("combine",), f"{message}: {sizes}")
    else:
        rows = dict.fromkeys(itertools.product(*arms.values()))
    for number, choice in enumerate(content.exclude):
        at = ("exclude", str(number))
        if not _exist(choice, arms, at, wrong):
            continue
        removed = {names for names in rows if matches(names, choice)}
        if not removed:
            wrong(at, "removes nothing: no combination has these arms, or an earlier one did")
        if base in removed:
            wrong(at, f"would remove the baseline {'+'.join(base)}")
        rows = {names: None for names in rows if names not in removed}
    for number, choice in enumerate(content.include):
        at = ("include", str(number))
        for names in completed(choice) if _exist(choice, arms, at, wrong) else ():
            if names in rows:
                wrong(at, f"{'+'.join(names)} is there already")
            rows[names] = None
    if base not in rows and not any(matches(base, choice) for choice in content.exclude):
        some = ", ".join("+".join(names) for names in itertools.islice(rows, 6))
        wrong(("baseline",), f"{combine} gives no {'+'.join(base)}, only {some}; include it")
    return tuple(
        Combination(arms=tuple((a, arms[a][n]) for a, n in zip(arms, names, strict=True)))
        for names in sorted(rows, key=lambda names: names != base)
    )


def _listed(names: str | list[str]) -> list[str]:
    return [names] if isinstance(names, str) else names


def _exist(choice: ArmChoice, arms: Mapping[str, Iterable[str]], at: Key, wrong: Wrong) -> bool:
    """Tell whether a choice names axes and arms that exist."""
    messages = []
    for axis, names in choice.items():
        if axis not in arms:
            messages.append((axis, f"no such axis{did_you_mean(axis, arms)}"))
            continue
        unknown = [name for name in _listed(names) if name not in arms[axis]]
        messages += [(axis, f"no such arm '{n}'{did_you_mean(n, arms[axis])}") for n in unknown]
    for axis, message in messages:
        wrong((*at, axis), message)
    return not messages
