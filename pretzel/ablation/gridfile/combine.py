"""Combinations of arms: product, zip or one at a time, less excluded ones, with included ones."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from pretzel.ablation.gridfile.grid import Arm, Axis, Combination
from pretzel.ablation.gridfile.schema import Combine
from pretzel.errors import did_you_mean
from pretzel.runs.config.yaml_lines import Key

Wrong = Callable[[Key, str], None]
Choice = Mapping[str, str | list[str]]


def combinations(
    axes: Sequence[Axis],
    baseline: Mapping[str, str],
    combine: Combine,
    exclude: Sequence[Choice],
    include: Sequence[Choice],
    wrong: Wrong,
) -> tuple[Combination, ...]:
    """Return the combinations of a grid, the baseline first.

    Args:
        axes: All of them.
        baseline: The arm of each axis.
        combine: What the axes give by themselves.
        exclude: What is taken out of that, by arms of some axes.
        include: What is added to that, the baseline's arms where an axis is not named.
        wrong: Called with the key and the text of each mistake.
    """
    by_name = {c.name: c for c in _combined(axes, baseline, combine, wrong)}
    base = Combination(arms=tuple((axis.name, _arm(axis, baseline[axis.name])) for axis in axes))
    for number, choice in enumerate(exclude):
        at = ("exclude", str(number))
        if not _exist(choice, axes, at, wrong):
            continue
        removed = [c for c in by_name.values() if _matches(c, choice)]
        if not removed:
            wrong(at, "removes nothing: no combination has these arms, or an earlier one did")
        if any(c.name == base.name for c in removed):
            wrong(at, f"would remove the baseline {base.name}")
        for combination in removed:
            del by_name[combination.name]
    for number, choice in enumerate(include):
        at = ("include", str(number))
        if not _exist(choice, axes, at, wrong):
            continue
        for combination in _completed(choice, axes, baseline):
            if combination.name in by_name:
                wrong(at, f"{combination.name} is there already")
            by_name[combination.name] = combination
    if base.name not in by_name and not any(_matches(base, choice) for choice in exclude):
        names = ", ".join(itertools.islice(by_name, 6))
        wrong(("baseline",), f"{combine} gives no {base.name}, only {names}; include it")
    return tuple(sorted(by_name.values(), key=lambda c: c.name != base.name))


def _combined(
    axes: Sequence[Axis], baseline: Mapping[str, str], combine: Combine, wrong: Wrong
) -> Iterator[Combination]:
    if combine == "one_at_a_time":
        for axis in axes:
            for arm in axis.arms:
                yield from _completed({axis.name: arm.name}, axes, baseline)
        return
    if combine == "zip" and len({len(axis.arms) for axis in axes}) > 1:
        sizes = ", ".join(f"{axis.name} has {len(axis.arms)}" for axis in axes)
        wrong(("combine",), f"zip pairs the arms in order and needs as many on every axis: {sizes}")
    paired = zip if combine == "zip" else itertools.product
    for arms in paired(*(axis.arms for axis in axes)):
        yield _of(axes, arms)


def _completed(
    choice: Choice, axes: Sequence[Axis], baseline: Mapping[str, str]
) -> Iterator[Combination]:
    """Yield the combinations of a choice, the baseline's arms where it names no axis."""
    names = [_listed(choice.get(axis.name, baseline[axis.name])) for axis in axes]
    for picked in itertools.product(*names):
        yield _of(axes, [_arm(axis, name) for axis, name in zip(axes, picked, strict=True)])


def _of(axes: Sequence[Axis], arms: Iterable[Arm]) -> Combination:
    return Combination(arms=tuple(zip((axis.name for axis in axes), arms, strict=True)))


def _arm(axis: Axis, name: str) -> Arm:
    return next(arm for arm in axis.arms if arm.name == name)


def _listed(names: str | list[str]) -> list[str]:
    return [names] if isinstance(names, str) else names


def _matches(combination: Combination, choice: Choice) -> bool:
    return all(combination.choices[axis] in _listed(names) for axis, names in choice.items())


def _exist(choice: Choice, axes: Sequence[Axis], at: Key, wrong: Wrong) -> bool:
    """Tell whether a choice names axes and arms that there are."""
    arms = {axis.name: [arm.name for arm in axis.arms] for axis in axes}
    good = True
    for axis, names in choice.items():
        if axis not in arms:
            wrong((*at, axis), f"no such axis{did_you_mean(axis, arms)}")
            good = False
            continue
        for name in _listed(names):
            if name not in arms[axis]:
                wrong((*at, axis), f"no such arm '{name}'{did_you_mean(name, arms[axis])}")
                good = False
    return good
