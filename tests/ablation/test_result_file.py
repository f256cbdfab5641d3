"""The file of a run's results: edits are told, and what is damaged counts as missing."""

import json
import math

import pytest

from pretzel.ablation.ledger import RunFolder, State
from pretzel.ablation.result_file import RESULT_FILE, write_result
from pretzel.ablation.status_table import StatusRow

METRICS = {"b": 0.1 + 0.2, "a": math.nan}
RESULT = {"identity": "x", "metrics": METRICS, "facts": {"b": {"n": (1, 2)}}}


@pytest.fixture
def folder(tmp_path):
    write_result(tmp_path, RESULT)
    return RunFolder(path=tmp_path)


def test_what_was_written_is_as_it_was_whatever_its_layout(folder):
    assert folder.result_fault == ""
    assert folder.result["metrics"]["b"] == METRICS["b"]
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


@pytest.mark.parametrize(("changed", "told"), [
    ({"metrics": None}, "metrics: Input should be a valid dictionary, got null"),
    ({"metrics": [0.5]}, "metrics: Input should be a valid dictionary, got [0.5]"),
    ({"metrics": {"b": None}}, "metrics.b: Input should be a valid number, got null"),
    ({"metrics": {"b": [1]}}, "metrics.b: Input should be a valid number, got [1]"),
    ({"train_seconds": "60"}, 'train_seconds: Input should be a valid number, got "60"'),
])  # fmt: skip
def test_what_no_run_writes_counts_as_missing(folder, changed, told):
    write_result(folder.path, RESULT | changed)
    assert folder.result is None
    expected = f"result.json counts as missing: {told}"
    assert StatusRow.of("a", folder, "x", None).note == expected


@pytest.mark.parametrize("content", [b'{"identity": "x", "met', b"\xff", b"[" * 100_000, b"3"])
def test_other_damage_counts_as_missing(folder, content):
    (folder.path / RESULT_FILE).write_bytes(content)
    assert folder.state("x") is State.PENDING
    assert folder.result_fault.startswith("result.json counts as missing: ")
