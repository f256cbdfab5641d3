"""The growth benchmark at tiny sizes: every axis is there, and processes train together."""

import pytest

from benchmarks.growth import TINY, main, step_seconds


def test_costs_of_every_axis_are_told():
    lines = main(["--quick"])
    rows = [line.split(" | ") for line in lines if line.startswith("|") and "---" not in line]
    assert [row[0].strip("| ") for row in rows] == [
        *("positions", "4", "9"), *("deep layers", "1", "2"), *("width", "16", "32"),
    ]  # fmt: skip
    assert all(float(row[1]) > 0 and float(row[4]) > 0 for row in rows if row[0][2].isdigit())


@pytest.mark.slow
def test_two_processes_train():
    assert step_seconds(2, TINY, 2) > 0
