"""What a grid shows while it runs: on a terminal a table, elsewhere lines of the same figures."""

import io
import re
import time
from itertools import pairwise

import pytest
from lab_files import write
from rich.console import Console

from pretzel.__main__ import main
from pretzel.ablation.execution import live_view as live
from pretzel.ablation.execution.live_view import LiveView, lines, seconds_left
from pretzel.ablation.ledger import RunFolder, State
from pretzel.ablation.status_table import StatusRow
from pretzel.files.atomic import write_json

CELLS = ("done/seed0", "runs/seed0", "starts/seed0", "failed/seed0", "waits/seed0", "waits/seed1")


@pytest.fixture
def read(tmp_path):
    """Six cells: done in 100 s; at 200 of 1,000 steps; just started; failed; two that wait."""
    marks = {"identity": "x", "evaluation": None}
    found = {"val/accuracy": 0.5, "train/loss_step": 9.0, "train/loss": 0.25, "val/loss": 0.75}
    progress = {
        "phase": "fit", "step": 200, "total": 1000, "seconds": 20.0, "rate": 10.0, "left": 80.0,
        "metrics": {**found, "lr": 3.0}, "time": time.time(),
    }  # fmt: skip
    result = {**marks, "metrics": {"test/loss": 0.5}, "steps": 1000, "seconds": 100.0}
    write_json(tmp_path / CELLS[0] / "result.json", result)
    write_json(tmp_path / CELLS[1] / "progress.json", progress)
    write_json(tmp_path / CELLS[2] / "progress.json", {"phase": "start", "time": time.time()})
    for name in CELLS[1:4]:
        write_json(tmp_path / name / "run.json", marks)
    write_json(tmp_path / CELLS[3] / "failure.json", {"error": "ValueError: bad\nmore"})
    folders = {name: RunFolder(path=tmp_path / name) for name in CELLS}
    with folders[CELLS[1]].lease(), folders[CELLS[2]].lease():
        yield lambda: [StatusRow.of(n, one, "x", None, ["test/loss"]) for n, one in folders.items()]


def view(path, **options):
    stream = io.StringIO()
    return LiveView(path, Console(file=stream, color_system=None, **options)), stream


def test_a_terminal_shows_a_table(read, tmp_path):
    shown, stream = view(tmp_path, force_terminal=True, width=140, height=40)
    shown.show(read)
    shown.live.refresh()
    table = stream.getvalue()
    for expected in (
        r"│ runs/seed0 +│ running │ 200/1000 +│ 10 +│ 80 s │ "
        r"fit train/loss=0\.25 val/loss=0\.75 val/accuracy=0\.5",
        r"│ starts/seed0 +│ running │ +│ +│ +│ start",
        r"│ done/seed0 +│ done +│ 1000/1000 │ +│ +│ test/loss=0\.5",
        r"│ failed/seed0 .* ValueError: bad ",
        r"\n2 pending, 2 running, 1 done, 1 failed; about 3 min left",  # (80 + 3 x 100) / 2
        r"┃ steps/s ┃ left",
    ):
        assert re.search(expected, table), expected
    shown.say("done/seed0: done in 100 s")
    shown.close()
    assert "done/seed0: done in 100 s\n" in stream.getvalue()


def test_elsewhere_lines_come_soon_and_then_once_a_minute(read, tmp_path, monkeypatch):
    shown, stream = view(tmp_path, force_terminal=False, width=80)
    now, told = round(time.monotonic()), []
    shown.last_shown = now  # whole seconds are added to it exactly
    for second in range(1, 301):
        monkeypatch.setattr(live.time, "monotonic", lambda second=second: now + second)
        before = stream.getvalue()
        shown.show(read)
        if stream.getvalue() != before:
            told.append(second)
    assert told[:3] == [10, 30, 70]
    assert {after - before for before, after in pairwise(told[2:])} == {60}
    assert stream.getvalue().startswith(
        "[2 pending, 2 running, 1 done, 1 failed; about 3 min left]\n"
        "  runs/seed0: 200/1000, 10 steps/s, 80 s left, "
        "fit train/loss=0.25 val/loss=0.75 val/accuracy=0.5\n"
        "  starts/seed0: start\n["
    )
    shown.say("done/seed0: done in 100 s")
    assert stream.getvalue().endswith("\ndone/seed0: done in 100 s\n")


def test_what_is_not_shown_is_not_read(tmp_path):
    shown, _ = view(tmp_path, force_terminal=False)

    def read():
        raise AssertionError

    shown.show(read)


def test_many_cells_do_not_flood_a_log():
    rows = [StatusRow(name=f"a/seed{n}", state=State.RUNNING) for n in range(99)]
    told = lines(rows)
    assert told[0] == "[99 running]"
    assert len(told) < 20
    assert told[-1] == "  and 83 more"


def row(name, state, seconds=0.0, left=None):
    return StatusRow(name=name, state=state, seconds=seconds, seconds_left=left)


@pytest.mark.parametrize(("rows", "expected"), [
    ([row("a/seed0", State.PENDING)], None),
    ([row("a/seed0", State.DONE, 9.0)], None),
    ([row("a/seed0", State.RUNNING, 10.0)], None),
    ([row("a/seed0", State.RUNNING, 10.0, 30.0)], 30.0),
    ([row("a/seed0", State.RUNNING, 10.0, 30.0), row("a/seed1", State.PENDING)], 70.0),
    ([row("a/seed0", State.DONE, 50.0), row("a/seed1", State.INTERRUPTED, 20.0)], 30.0),
    # what is done tells more than what runs; a stage tells of its own kind
    ([row("a/seed0", State.DONE, 50.0), row("stages/s-seed0-1", State.DONE, 7.0),
      row("stages/s-seed1-1", State.PENDING), row("a/seed1", State.PENDING)], 57.0),
    # what is done has been measured too, which a cell that trains does not know
    ([row("a/seed0", State.DONE, 50.0), row("a/seed1", State.RUNNING, 10.0, 20.0)], 40.0),
    ([row("a/seed0", State.DONE, 50.0), row("a/seed1", State.RUNNING, 10.0, 60.0)], 60.0),
    # two at a time, but none takes less than itself
    ([row("a/seed0", State.RUNNING, 10.0, 90.0), row("a/seed1", State.RUNNING, 90.0, 10.0)], 90.0),
    ([row("a/seed0", State.DONE, 5.0), row("a/seed1", State.FAILED), row("a/seed2", State.STALE),
      row("a/seed3", State.PENDING)], 5.0),
])  # fmt: skip
def test_the_time_that_is_left(rows, expected):
    assert seconds_left(rows) == expected


def test_a_cell_without_news_says_so(tmp_path):
    folder = RunFolder(path=tmp_path)
    write_json(tmp_path / "run.json", {"identity": "x"})
    told = {"phase": "test", "step": 9, "total": 9, "left": 0.0, "time": time.time() - 200}
    write_json(tmp_path / "progress.json", told)
    with folder.lease():
        found = StatusRow.of("a/seed0", folder, "x", None)
    assert found.note == "test  (no news for 3 min)"
    assert found.left == ""  # the time that is left is that of training


@pytest.mark.parametrize(("done", "next_run"), [
    ([], "about 60 s left"), ([row("a/seed1", State.DONE, 50.0)], "about 50 s left"),
])  # fmt: skip
def test_no_time_is_told_of_a_test(tmp_path, done, next_run):
    """Only training tells how long it takes."""
    write_json(tmp_path / "run.json", {"identity": "x"})
    progress = {"phase": "test", "step": 9, "total": 9, "seconds": 60.0, "left": 0.0, "rate": 2.0}
    write_json(tmp_path / "progress.json", progress | {"time": time.time()})
    folder = RunFolder(path=tmp_path)
    with folder.lease():
        tested = StatusRow.of("a/seed0", folder, "x", None)
    assert tested.state is State.RUNNING
    assert not any(re.search(r"\bleft\b", line) for line in lines([tested, *done]))
    assert next_run in lines([tested, *done, row("a/seed2", State.PENDING)])[0]


def test_following_ends_when_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(live.time, "sleep", lambda seconds: None)
    states = iter([State.RUNNING, State.PENDING, State.INTERRUPTED, State.FAILED])
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, color_system=None, width=80)
    twins = lambda rows: [f"{rows[0].name} is a twin"]  # noqa: E731
    live.follow(tmp_path, lambda: [row("a/seed0", next(states))], twins, console)
    assert "running" in stream.getvalue()
    assert stream.getvalue().count("a/seed0 is a twin\n") == 1
    assert next(states, None) is None


def test_following_ends_with_ctrl_c(tmp_path):
    def read():
        raise KeyboardInterrupt

    live.follow(tmp_path, read, lambda rows: [])


def test_status_tells_the_time_that_is_left(read, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    axes = {"arm": {"a": {}, "b": {"seed_everything": 3}}}
    write("grid.yaml", {"base": write("base.yaml", {}), "axes": axes, "seeds": [0],
                        "baseline": {"arm": "a"}, "metrics": {"test/loss": "min"},
                        "output": "."})  # fmt: skip
    cells = [{"name": n, "arm": n.partition("/")[0], "seed": 0, "identity": "x"} for n in CELLS]
    arms = {cell["arm"]: {"choices": {}, "changes": []} for cell in cells}
    plan = {"runs": cells, "arms": arms, "baseline": "done", "axes": {}, "seeds": [0]}
    write_json(tmp_path / "plan.json", plan | {"metrics": {"test/loss": "min"}})
    assert main(["grid", "status", "grid.yaml"]) == 0
    shown = capsys.readouterr().out
    assert "2 pending, 2 running, 1 done, 1 failed; about 3 min left" in shown
    assert re.search(r"│ runs/seed0 +│ running │ 200/1000 +│ 10 +│ 80 s │ fit", shown)
