"""A large grid parses its base once, and builds each model once."""

from pathlib import Path

from benchmarks.grid_plan import planned


def test_the_counts_do_not_grow_with_the_grid(tmp_path: Path):
    actual = planned(tmp_path, configurations=20, seeds=5, vary="rates")
    assert (actual.runs, actual.wholes, actual.arguments, actual.builds) == (100, 1, 19, 1)


def test_each_architecture_is_built_once(tmp_path: Path):
    actual = planned(tmp_path, configurations=12, seeds=3, vary="architectures")
    assert (actual.runs, actual.wholes, actual.builds) == (36, 1, 12)
    assert actual.arguments == 1 + 9  # the other width and depths; the first arm is parsed whole
