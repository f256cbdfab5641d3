"""The table of where cells stand: whole, narrow, and as long as a terminal."""

import io

import pytest
from rich.console import Console

from pretzel.ablation.ledger import RunFolder, State
from pretzel.ablation.status_table import StateTable, StatusRow
from pretzel.files.atomic import write_json


def row(name, state, note=""):
    return StatusRow(name=name, state=state, step="3/7", note=note)


def shown(table, width=200, **options):
    console = Console(file=io.StringIO(), width=width, color_system=None, **options)
    console.print(table, end="")
    return console.file.getvalue().splitlines()


def test_lines_are_as_wide_as_each_other_and_end_with_counts():
    rows = [row("a/seed0", State.DONE, "x=1"), row("long/seed10", State.FAILED, "日本\x1b[2J [b]")]
    title, *table, counts = shown(StateTable(rows, "runs/grid"))
    assert title == "runs/grid"
    assert counts == "1 done, 1 failed"
    assert len({line.index("┃" if "┃" in line else "│") for line in table[1:2] + table[3:-1]}) == 1
    assert "│ a/seed0     │ done   │ 3/7  │      │ x=1" in table[3]
    assert "日本 [2J [b]" in table[4]  # nothing that moves a cursor, and no markup is lost


@pytest.mark.parametrize("width", [45, 60])
def test_what_is_longest_is_cut_where_a_line_is_short(width):
    rows = [row("a/seed0", State.FAILED, "because " * 20)]
    *table, _ = shown(StateTable(rows), width=width)
    assert all(len(line) == width for line in table)
    assert "because" in table[3]
    assert "…" in table[3]
    *table, _ = shown(StateTable(rows, whole=True), width=width, soft_wrap=True)
    assert ("because " * 20).strip() in table[3]


def test_a_short_terminal_shows_what_runs_and_what_failed_in_order():
    states = [*[State.DONE] * 50, State.FAILED, *[State.PENDING] * 50, State.RUNNING]
    rows = [row(f"arm{n}", state) for n, state in enumerate(states)]
    *table, counts = shown(StateTable(rows, most=4))
    assert [line.split()[1] for line in table[3:-1]] == ["arm50", "arm51", "arm52", "arm101"]
    assert counts == "50 pending, 1 running, 50 done, 1 failed"


def test_a_finished_cell_is_told_by_its_result(tmp_path):
    folder = RunFolder(path=tmp_path)
    write_json(tmp_path / "progress.json", {"phase": "test", "step": 3, "metrics": {"b": 2.0}})
    write_json(
        tmp_path / "result.json", {"identity": "x", "steps": 7, "metrics": {"b": 0.5, "a": 1.0}}
    )
    assert StatusRow.of("a", folder, "x", None, ["a"]) == StatusRow(
        name="a", state=State.DONE, step="7/7", note="a=1"
    )
    assert StatusRow.of("a", folder, "y", None).step == "3/?"  # stale: as far as it had come
