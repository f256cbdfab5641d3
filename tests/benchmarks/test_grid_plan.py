"""A large grid parses its base once, and builds its model once where only rates differ."""

from pathlib import Path

from benchmarks.grid_plan import planned


def test_the_counts_do_not_grow_with_the_grid(tmp_path: Path):
    found = planned(tmp_path, configurations=20, seeds=5, widths=False)
    assert (found.runs, found.wholes, found.arguments, found.builds) == (100, 1, 19, 1)
