"""The benchmark runs at a tiny size and compares equal results; it is not timed."""

import json

from benchmarks.flow import main

TINY = ["--side", "2", "--channels", "3", "--width", "16", "--head_dim", "8", "--layers", "1", "1",
        "--batch", "2", "--rounds", "1"]  # fmt: skip


def test_result_is_printed_and_written(tmp_path, capsys):
    rows = main([*TINY, "--no_memory", "--out", str(tmp_path / "flow")])
    assert [row.task for row in rows] == ["training step", "sequential sampling"]
    assert all(row.ratio > 0 for row in rows)
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "flow.md").read_text()
    assert "| training step |" in printed
    saved = json.loads((tmp_path / "flow.json").read_text())
    assert saved["size"]["layers"] == [1, 1]
    assert [row["task"] for row in saved["rows"]] == [row.task for row in rows]


def test_a_child_prints_what_it_adds(capsys):
    main([*TINY, "--child", "training step/reference"])
    assert float(capsys.readouterr().out) >= 0
