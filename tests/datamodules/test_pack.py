"""`pretzel data pack`: whole shards, the same ones whatever happens on the way."""

import errno
import json
import multiprocessing
import os
from itertools import chain
from pathlib import Path

import pytest
from noise_source import Noise, TrainOnly, interrupt

from datamodules import Shards
from datamodules.reading.tar_shard import RawSample
from datamodules.tools.chosen_source import chosen_source
from datamodules.tools.pack import pack
from datamodules.tools.pack_journal import PackJournal
from datamodules.tools.split_rule import SplitRule
from datamodules.tools.verify import verify
from datamodules.tools.worker_pool import map_in_order
from pretzel.__main__ import main
from pretzel.errors import UserError


def files(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def test_the_same_shards_after_ctrl_c_a_kill_and_with_processes(tmp_path, monkeypatch):
    monkeypatch.setattr("datamodules.tools.pack._CHUNK", 4)
    broken = ("a/03", "b/19", "v/04")
    arguments = {"name": "noise", "shard_size": 6, "license_text": "CC0"}
    manifest = pack(Noise(broken=broken), tmp_path / "whole", **arguments)
    assert manifest["splits"]["train"]["samples"] == 38
    assert manifest["splits"]["val"] == {"shards": 1, "samples": 4, "bytes": 10240}
    assert manifest["skipped"] == {"damaged": 3}
    whole = files(tmp_path / "whole")
    lines = [json.loads(line) for line in whole["skipped.jsonl"].splitlines()]
    assert {line["key"] for line in lines} == set(broken)
    keys = [s.key for s in Shards(str(tmp_path / "whole/train-0000{0..6}.tar")).samples("train", 8)]
    all_keys = [f"{shard}/{number:02d}" for shard in "ab" for number in range(20)]
    assert keys == [key for key in all_keys if key not in broken]

    with pytest.raises(KeyboardInterrupt, match=r"interrupted; the same command continues"):
        pack(Noise(interrupt, broken), tmp_path / "stopped", **arguments)
    left = {path.name for path in (tmp_path / "stopped").iterdir()}
    shards = [f"train-0000{i}.tar" for i in range(3)]
    assert left == {".pack", "LICENSE.txt", *shards, *(f"{name}.index" for name in shards)}
    again = Noise(broken=broken)
    pack(again, tmp_path / "stopped", **arguments)
    assert again.count == 45 - 19  # what is packed, and one that is broken, is not read again
    assert files(tmp_path / "stopped") == whole

    process = multiprocessing.get_context("fork").Process(
        target=pack,
        args=(Noise(lambda: os._exit(9), broken), tmp_path / "killed"),
        kwargs=arguments,
    )
    process.start()
    process.join()
    assert process.exitcode == 9
    for path in (tmp_path / "killed").glob("*.tar"):
        assert path.read_bytes() == whole[path.name]
    pack(Noise(broken=broken), tmp_path / "killed", num_workers=2, **arguments)
    assert files(tmp_path / "killed") == whole
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").iterdir()}
    assert pack(Noise(broken=broken), tmp_path / "killed", **arguments) == manifest
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").iterdir()}


def test_held_out_samples_are_chosen_by_their_keys_alone(tmp_path):
    rule = SplitRule(held_out={"val": 0.2, "test": 0.1})
    counts = {}
    for name, source in (("one", TrainOnly()), ("other", TrainOnly(broken=("a/00", "a/01")))):
        pack(source, tmp_path / name, name=name, rule=rule, shard_size=100)
        splits = {
            split: {
                s.key
                for s in Shards(str(tmp_path / name / f"{split}-00000.tar")).samples("train", 8)
            }
            for split in ("train", "val", "test")
        }
        counts[name] = splits
    assert sum(map(len, counts["one"].values())) == 40
    assert 3 <= len(counts["one"]["val"]) <= 14
    for split in ("train", "val", "test"):
        assert counts["other"][split] == counts["one"][split] - {"a/00", "a/01"}
    with pytest.raises(UserError, match=r"^val_share: the source has a split val already$"):
        pack(Noise(), tmp_path / "x", name="x", rule=rule)
    with pytest.raises(UserError, match=r"^val_share must be between 0 and 1, got 1.5$"):
        SplitRule(held_out={"val": 1.5})
    assert not (tmp_path / "x").exists()


def test_keys_that_readers_would_break_or_join_are_changed(tmp_path):
    class Odd(TrainOnly):
        def read(self, shard, first=0, step=1):
            for key in ("v1.2/my.cat", "v1.2/my_cat", "é" * 80)[first::step]:
                members = {"png": self.pictures[0], "txt": b"t"}
                yield RawSample(shard=shard, key=key, members=members)

    pack(Odd(), tmp_path / "odd", name="odd", shard_size=3)
    source = Shards(str(tmp_path / "odd" / "train-00000.tar"))
    keys = [sample.key for sample in source.samples("train", 8)]
    assert keys == ["v1.2/my_cat", "v1.2/my_cat-2", "é" * 80]


def test_another_packing_of_a_folder_is_refused(packed, tmp_path):
    with pytest.raises(UserError, match=r"p: was packed with shard_size 10, not 5; name another"):
        pack(Noise(), packed, name="noise", shard_size=5)
    with pytest.raises(UserError, match=r"p: was packed with shards and samples .* name another"):
        pack(TrainOnly(), packed, name="noise", shard_size=10)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("")
    with pytest.raises(UserError, match=r"full: is not empty, and holds no shards that pack began"):
        pack(Noise(), tmp_path / "full", name="noise")
    with pytest.raises(UserError, match=r"no training sample to pack; the first that was skipped"):
        pack(TrainOnly(broken=[f"{s}/{n:02d}" for s in "ab" for n in range(20)]),
             tmp_path / "none", name="none")  # fmt: skip
    assert not (tmp_path / "none").exists()


def test_a_packed_folder_that_lacks_a_file_or_has_another_licence_is_refused(packed):
    assert pack(Noise(), packed, name="noise", shard_size=10)["license"] == "CC0"
    with pytest.raises(UserError, match=r"p: was packed with license 'CC0', not 'CC BY'; name ano"):
        pack(Noise(), packed, name="noise", shard_size=10, license_text="CC BY")
    (packed / "train-00001.tar").unlink()
    with pytest.raises(UserError, match=r"p: was packed, but train-00001.tar is missing; name"):
        pack(Noise(), packed, name="noise", shard_size=10)


def test_it_continues_from_what_is_really_there(packed, tmp_path, monkeypatch):
    whole = files(packed)
    monkeypatch.setattr("datamodules.tools.pack._CHUNK", 4)
    arguments = {"name": "noise", "shard_size": 10, "license_text": "CC0"}
    folder = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        pack(Noise(interrupt), folder, **arguments)
    journal = folder / ".pack" / "journal.jsonl"
    with journal.open("a") as file:
        file.write('{"split": "tr')  # by a full disk
    for _ in range(2):  # the line that was cut does not spoil the ones behind it
        source = Noise(interrupt)
        source.count = 15
        with pytest.raises(KeyboardInterrupt):
            pack(source, folder, **arguments)
    assert [json.loads(line)["file"] for line in journal.read_text().splitlines()] == [
        f"train-0000{number}.tar" for number in range(4)
    ]
    (folder / "train-00001.tar").unlink()  # by the user
    pack(Noise(), folder, **arguments)
    assert files(folder) == whole


def test_a_journal_that_cannot_be_read_leaves_what_is_packed(tmp_path, monkeypatch):
    monkeypatch.setattr("datamodules.tools.pack._CHUNK", 4)
    folder = tmp_path / "p"
    with pytest.raises(KeyboardInterrupt):
        pack(Noise(interrupt), folder, name="noise", shard_size=6)
    with monkeypatch.context() as patch:
        patch.setattr(PackJournal, "read", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pack(Noise(), folder, name="noise", shard_size=6)
    again = Noise()
    pack(again, folder, name="noise", shard_size=6)
    assert again.count < 45


def _die(_):
    os._exit(1)


def test_a_worker_that_is_killed_is_one_sentence():
    with pytest.raises(UserError, match="a worker process was killed"):
        list(map_in_order(_die, [1], 1))


def test_two_processes_do_not_pack_into_one_folder(tmp_path):
    def other():
        with pytest.raises(UserError, match=r"p: another process packs into it$"):
            pack(Noise(), tmp_path / "p", name="noise")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(Noise(other), tmp_path / "p", name="noise")
    assert not (tmp_path / "p").exists()


def test_a_full_disk_is_one_sentence_and_the_command_continues(tmp_path, monkeypatch):
    real = os.fsync
    left = [10]

    def full(descriptor):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device", "a.tar")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="No space left on device"):
            pack(Noise(), tmp_path / "p", name="noise", shard_size=6)
    assert len(list((tmp_path / "p").glob("*.tar"))) == 3
    pack(Noise(), tmp_path / "p", name="noise", shard_size=6)
    assert verify([str(tmp_path / "p")])[1] == []


def test_splits_are_folders_or_the_beginnings_of_names(write_shard, encoded, tmp_path):
    members = {"x.png": encoded(), "x.txt": b"t"}
    for folder in ("train", "val", "more"):
        (tmp_path / folder).mkdir()
    splits = {"train": ["train/0.tar"], "val": ["val/0.tar", "val/train.tar"]}
    splits["test"] = ["test-0.tar"]
    for name in chain.from_iterable(splits.values()):
        write_shard(name, members)
    chosen = chosen_source([str(tmp_path)], []).source
    for split, names in splits.items():
        assert chosen.shards(split) == tuple(str(tmp_path / name) for name in names)
    write_shard("more/1.tar", members)  # of no split: all are for training
    assert len(chosen_source([str(tmp_path)], []).source.shards("train")) == 5


def test_what_the_command_line_refuses(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("bad.yaml").write_text("data: {init_args: {source: {class_path: os.system}}}\n")
    Path("none.yaml").write_text("trainer: {}\n")
    Path("x.tar").write_bytes(b"")
    for args, sentence in {
        ("pack", "--out", "o"): "the data must be named by paths or by -c, got neither",
        ("pack", "empty", "-c", "bad.yaml", "--out", "o"): "by paths or by -c, got both",
        (
            "pack",
            "-c",
            "bad.yaml",
            "--out",
            "o",
        ): "bad.yaml:1: source",
        ("pack", "-c", "none.yaml", "--out", "o"): "none.yaml: names no source of data",
        ("pack", "nowhere", "--out", "o"): "nowhere: no such file or folder",
        ("pack", "nowhere.csv", "--out", "o"): "nowhere.csv: no such file or folder",
        ("inspect", "bad.yaml"): "bad.yaml: a configuration is named by -c bad.yaml",
        ("verify", "nowhere.tar"): "nowhere.tar",
        ("inspect", "x.tar", "--limit", "0"): "limit must be at least 1, not 0",
        ("pack", "x.tar", "--out", "bad.yaml/o"): "bad.yaml/o: cannot be written (Not a directory)",
        ("pack", "x.tar", "--out", "bad.yaml"): "bad.yaml: cannot be written (Not a directory)",
    }.items():
        assert main(["data", *args]) == 2, args
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert sentence in lines[0]
    assert not Path("o").exists()


def test_any_source_of_a_configuration_is_packed(shard_pattern, tmp_path, capsys):
    config = tmp_path / "c.yaml"
    config.write_text(
        f"data:\n  init_args:\n    source:\n      class_path: datamodules.Shards\n"
        f"      init_args: {{train: '{shard_pattern}'}}\n"
    )
    out = tmp_path / "out"
    args = ["data", "pack", "-c", str(config), "--out", str(out), "--workers", "0"]
    assert main([*args, "--val-share", "0.1", "--license", "made by a test"]) == 0
    told = capsys.readouterr().out
    assert "train" in told
    assert (out / "LICENSE.txt").read_text() == "made by a test\n"
