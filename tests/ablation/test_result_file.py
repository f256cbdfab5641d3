"""The file of a run's results: edits are told, and what is damaged counts as missing."""

import json
import math

import pytest

from pretzel.ablation.ledger import RunFolder, State
from pretzel.ablation.result_file import RESULT_FILE, write_result
from pretzel.ablation.status_table import StatusRow

RESULT = {"identity": "x", "metrics": {"b": 0.1 + 0.2, "a": math.nan}, "facts": {3: (1, 2)}}


@pytest.fixture
def folder(tmp_path):
    write_result(tmp_path, RESULT)
    return RunFolder(path=tmp_path)


def test_what_was_written_is_as_it_was_whatever_its_layout(folder):
    assert folder.result_fault == ""
    assert folder.result["metrics"]["b"] == RESULT["metrics"]["b"]
    values = json.loads((folder.path / RESULT_FILE).read_text())
    (folder.path / RESULT_FILE).write_text(json.dumps(values, sort_keys=True))
    assert folder.result_fault == ""


def test_an_edit_is_told_and_counts(folder):
    text = (folder.path / RESULT_FILE).read_text()
    (folder.path / RESULT_FILE).write_text(text.replace("0.30000000000000004", "0.3"))
    row = StatusRow.of("a", folder, "x", None, ["b"])
    assert (row.state, row.note) == (
        State.DONE, "b=0.3 (result.json was edited after the run had written it)",
    )  # fmt: skip


@pytest.mark.parametrize(("metrics", "told"), [
    (None, "got null"), ([0.5], r"got [0.5]"), ({"b": None}, "got null for b"),
    ({"b": [1]}, "got [1] for b"), ({"b": "0.5"}, 'got "0.5" for b'),
])  # fmt: skip
def test_metrics_that_are_no_numbers_count_as_missing(folder, metrics, told):
    write_result(folder.path, {**RESULT, "metrics": metrics})
    assert folder.result is None
    expected = f"result.json counts as missing: metrics must be numbers by name, {told}"
    assert StatusRow.of("a", folder, "x", None).note == expected


@pytest.mark.parametrize("content", [b'{"identity": "x", "met', b"\xff", b"[" * 100_000, b"3"])
def test_other_damage_counts_as_missing(folder, content):
    (folder.path / RESULT_FILE).write_bytes(content)
    assert folder.state("x") is State.PENDING
    assert folder.result_fault.startswith("result.json counts as missing: ")
