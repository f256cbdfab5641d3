"""The files of a cell: whole or absent, and one process at a time."""

import fcntl
import os
import subprocess
import sys
import threading

import pytest

from pretzel.ablation.ledger import RunFolder, State
from pretzel.errors import UserError
from pretzel.files.atomic import read_json, write_json


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(UserError, match=r"x\.json: cannot be written \(No space left\)"):
        write_json(path, {"a": 2})
    assert read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_damaged_json_counts_as_missing(tmp_path):
    (tmp_path / "result.json").write_text('{"identity": "x", "met')
    assert RunFolder(path=tmp_path).state("x") is State.PENDING


def test_the_lease_ends_with_its_process(tmp_path):
    folder = RunFolder(path=tmp_path / "cell")
    hold = (
        "import sys; from pathlib import Path; from pretzel.ablation.ledger import RunFolder\n"
        "with RunFolder(path=Path(sys.argv[1])).lease() as mine:\n"
        "    print(mine, flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(folder.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout.readline() == b"True\n"
    assert folder.state("x") is State.RUNNING
    with folder.lease() as mine:
        assert not mine
    holder.kill()
    holder.wait()
    holder.stdin.close()
    holder.stdout.close()
    assert folder.state("x") is State.PENDING
    with folder.lease() as mine:
        assert mine


def test_who_only_looks_takes_no_lease_away(tmp_path):
    folder = RunFolder(path=tmp_path)
    with folder.lease():
        pass
    with (tmp_path / "lease").open() as look:  # as status does, for longer
        fcntl.flock(look, fcntl.LOCK_SH)
        release = threading.Timer(0.05, fcntl.flock, (look, fcntl.LOCK_UN))
        release.start()
        with folder.lease() as mine:
            assert mine
        release.join()


def test_another_configuration_starts_from_nothing(tmp_path):
    folder = RunFolder(path=tmp_path)
    folder.prepare({"identity": "old"})
    (tmp_path / "last.ckpt").touch()
    (tmp_path / "checkpoints").mkdir()
    folder.prepare({"identity": "old"})
    assert (tmp_path / "last.ckpt").exists()  # the same one continues
    folder.prepare({"identity": "new"})
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_figures_stay_until_new_ones_are_there(tmp_path):
    folder = RunFolder(path=tmp_path)
    old = {"identity": "i", "evaluation": "old"}
    folder.prepare(old)
    write_json(tmp_path / "result.json", {**old, "metrics": {"m": 1.0}})
    assert folder.is_done(old)
    new = {**old, "evaluation": "new"}
    folder.prepare(new)
    assert folder.result["metrics"] == {"m": 1.0}  # the new measurement may fail
    assert not folder.is_done(new)
    assert folder.state("i", "new") is State.TRAINED
    folder.prepare({**new, "identity": "other"})
    assert folder.result is None


def test_a_link_is_no_folder_of_a_run(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.txt").touch()
    (tmp_path / "seed0").symlink_to(tmp_path / "theirs")
    with pytest.raises(UserError, match="seed0: the folder of a run must be no link"):
        RunFolder(path=tmp_path / "seed0").prepare({"identity": "new"})
    with pytest.raises(UserError, match="seed0: the folder of a run must be no link"):
        RunFolder(path=tmp_path / "seed0").adopt("new", None)
    assert len(list((tmp_path / "theirs").iterdir())) == 1
    assert (tmp_path / "theirs" / "thesis.txt").exists()
