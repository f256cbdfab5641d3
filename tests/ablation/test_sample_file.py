"""The file of the results of items: open, equal for equal results, read only where it is whole."""

import gzip
import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from pretzel.ablation import sample_file
from pretzel.ablation.sample_file import SAMPLE_FILE, read_samples, sample_results, write_samples
from pretzel.errors import UserError

SAMPLES = [
    {"item": "a/1", "values": {"test/vqa": 1.0}, "group": "a", "texts": {"answer": "N/A, ”1e5”"}},
    {"item": "a/2", "values": {"test/vqa": None, "test/open": 0.3}, "group": "a"},
]


def kept(*parts):
    return sample_results(SimpleNamespace(lightning_module=object(), callbacks=parts))


def part(*samples):
    return SimpleNamespace(sample_results=list(samples))


def test_what_is_written_is_read_by_us_and_by_anybody(tmp_path):
    record = write_samples(tmp_path, SAMPLES)
    assert [*read_samples(tmp_path, record)] == SAMPLES
    lines = gzip.decompress((tmp_path / SAMPLE_FILE).read_bytes()).splitlines()
    assert [json.loads(line) for line in lines] == SAMPLES
    frame = pd.read_json(tmp_path / SAMPLE_FILE, lines=True)
    assert frame.texts[0] == SAMPLES[0]["texts"]
    odd = {"item": "half \ud83d", "values": {}, "texts": {"t": "\0\u2028<\u202e"}}
    assert [*read_samples(tmp_path, write_samples(tmp_path, [odd]))] == [odd | {"item": "half ?"}]
    (tmp_path / "other").mkdir()
    assert write_samples(tmp_path / "other", SAMPLES) == record


def test_results_of_all_parts_become_plain_numbers_and_short_texts():
    values = {"a": torch.tensor(0.25), "b": True, "c": np.float32(0.5), "d": math.nan, "e": 1}
    sample = {"item": "x" * 9999, "values": values, "texts": {"long": "y" * 9999}}
    (first, second) = kept(part(sample), object(), part(), part({"item": "z", "values": {"f": 2}}))
    assert first["values"] == {"a": 0.25, "b": 1.0, "c": 0.5, "d": None, "e": 1.0}
    assert len(first["item"]) == len(first["texts"]["long"]) == sample_file.MOST_LETTERS
    assert second == {"item": "z", "values": {"f": 2.0}}


@pytest.mark.parametrize(("samples", "reason"), [
    ([{"item": "a", "values": {"m": 1.0}}] * 2, "m has two results of the item 'a'"),
    ([{"item": "a"}], "values Field required"),
    ([{"item": "a", "values": {"m": "high"}}], "values.m Input should be a valid number"),
    ([{"item": str(i), "values": {}} for i in range(4)], "4 items, and 3 at most are kept"),
    (3, "int"),
])  # fmt: skip
def test_a_run_is_not_lost_for_results_that_cannot_be_kept(samples, reason, monkeypatch):
    monkeypatch.setattr(sample_file, "MOST_ITEMS", 3)
    with pytest.warns(UserWarning, match=f"results of single items are not kept: .*{reason}"):
        found = kept(SimpleNamespace(sample_results=samples), part(*SAMPLES))
    assert found == SAMPLES


def test_texts_of_many_items_are_left_out_and_groups_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr(sample_file, "SHOWN_BYTES", 50)
    record = write_samples(tmp_path, [SAMPLES[0], SAMPLES[0]])
    assert [*read_samples(tmp_path, record)] == [
        SAMPLES[0], {key: SAMPLES[0][key] for key in ("item", "values", "group")},
    ]  # fmt: skip


def refused(folder, content, *, honest=True):
    """Return why a file is not read, whose hash is the one of the result if ``honest``."""
    if content is not None:
        (folder / SAMPLE_FILE).write_bytes(content)
    digest = sample_file._hash(folder / SAMPLE_FILE) if honest and content is not None else "0"
    with pytest.raises(UserError) as caught:
        [*read_samples(folder, {"sha256": digest, "items": 2})]
    (line,) = str(caught.value).splitlines()
    return line


def test_a_file_that_is_not_the_runs_is_not_read(tmp_path, monkeypatch):
    whole = gzip.compress(b'{"item": "a", "values": {}}\n' * 100)
    assert refused(tmp_path, None) == "samples.jsonl.gz is missing"
    assert "not as the run has written it" in refused(tmp_path, whole, honest=False)
    assert "cannot be read" in refused(tmp_path, whole[:-9])
    assert "cannot be read" in refused(tmp_path, b"PK")
    assert "cannot be read" in refused(tmp_path, whole[:12] + b"\xff" * 9)
    for line in (b"[" * 100_000, b"\xff", b'{"item": 1, "values": {}}', b'{"item": "a"}', b"\n"):
        assert "no result of an item" in refused(tmp_path, gzip.compress(line))
    monkeypatch.setattr(sample_file, "MOST_BYTES", 1000)
    assert "holds more than 1000 bytes" in refused(tmp_path, whole)
    assert "is larger than 1000 bytes" in refused(tmp_path, b"x" * 1001)
    (tmp_path / SAMPLE_FILE).unlink()
    (tmp_path / SAMPLE_FILE).symlink_to("/dev/zero")
    assert refused(tmp_path, None) == "samples.jsonl.gz is missing"
