"""The benchmark of grids runs from end to end; nothing is said of its times."""

import sys

import pytest

from benchmarks import grid, processes
from benchmarks.grid import Look
from benchmarks.processes import Against, Cost


def cost(seconds):
    return Cost(clock=seconds, cpu=2 * seconds)


def tables(printed):
    """Return the rows of each section, by its title."""
    return {
        section.partition("\n")[0]: [line for line in section.split("\n") if "|" in line][2:]
        for section in printed.split("\n### ")[1:]
    }


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_a_cell_ends_as_a_plain_fit(capfd):
    assert grid.main(["--quick", "--only", "cell"]) == 0  # equal weights are asserted
    printed, progress = capfd.readouterr()
    (title, (cell,)) = tables(printed).popitem()
    assert title == "One cell of 2 steps"
    assert cell.startswith("| cell, forked | pretzel fit | ")
    assert "round 1 of 1: pretzel fit" in progress


def test_a_look_imports_no_torch(capfd):
    assert grid.main(["--quick", "--only", "looks"]) == 0
    (title, looks) = tables(capfd.readouterr().out).popitem()
    assert title == "Looking"
    assert [row.split(" | ")[0] for row in looks] == [
        "| pretzel grid status, 10 arms x 2 seeds",
        "| pretzel --help",
    ]
    for row in looks:
        assert row.split(" | ")[4] == "no", f"{row}: it imports torch"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_grid_runs_beside_plain_fits(capfd):
    assert grid.main(["--quick", "--only", "grid"]) == 0  # that all cells are done is asserted
    (title, (row,)) = tables(capfd.readouterr().out).popitem()
    assert title == "A grid of small cells, of 2 steps"
    assert row.startswith("| pretzel grid run, cells: 1, at a time: 1 | pretzel fit | ")


def test_an_import_of_torch_is_noticed(monkeypatch, tmp_path):
    monkeypatch.setattr(grid, "pretzel", lambda *_: [sys.executable, "-c", "import pretzel, torch"])
    (look,) = grid.looks(tmp_path, [], 1)
    assert "torch" in look.imports
    assert "missed" in grid.looked([look])[-1]


def test_a_ratio_is_taken_within_each_round_and_held_to_its_goal():
    rows = [
        Against(work="a", other="b", costs=[cost(1.0), cost(3.0), cost(8.0)],
                others=[cost(1.0), cost(2.0), cost(10.0)], goal=1.05)
    ]  # fmt: skip
    assert (rows[0].clock.median, rows[0].clock.low, rows[0].clock.high) == (1.0, 0.8, 1.5)
    assert grid.compared("Cell", rows)[-1] == (
        "| a | b | 3.0 / 2.0 | 6.0 / 4.0 | 1.00 (0.80-1.50) | 1.00 (0.80-1.50) "
        "| <= 1.05: clock met, CPU met |"
    )


def test_a_slow_look_misses_its_goal():
    looks = [Look(name="x", costs=[cost(0.5), cost(1.5), cost(2.0)], imports=frozenset({"re"}))]
    assert grid.looked(looks)[-1] == (
        "| x | 1.50 (0.50-2.00) | 3.00 | 1 | no | < 1 s, no torch: missed |"
    )


def test_arms_run_in_turn_forwards_and_backwards():
    ran = []

    def arm(name):
        return lambda: ran.append(name) or cost(float(len(ran)))

    costs = processes.in_turn({"a": arm("a"), "b": arm("b")}, 2)
    assert ran == ["a", "b", "b", "a"]
    assert [one.clock for one in costs["a"]] == [1.0, 4.0]


def test_cpu_time_of_what_was_started_counts(tmp_path):
    busy = [sys.executable, "-c", "import time\nwhile time.process_time() < 0.3: pass"]
    actual = processes.cost(lambda: processes.run("busy", [busy, busy], tmp_path, 2))
    assert 0.59 <= actual.cpu < 3.0  # the clock of CPU time counts in hundredths


def test_a_command_that_fails_is_told(tmp_path):
    with pytest.raises(RuntimeError, match="has failed:\nwhat went wrong"):
        processes.output([sys.executable, "-c", "raise SystemExit('what went wrong')"], tmp_path)
