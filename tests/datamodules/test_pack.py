"""`pretzel data pack` and `verify`: whole shards, the same ones whatever happens on the way."""

import errno
import gzip
import json
import multiprocessing
import os
import subprocess
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from noise_images import noise_png

from datamodules import DataSource, Shards
from datamodules.reading.index import read_index
from datamodules.reading.tar_shard import RawSample
from datamodules.tools.chosen_source import chosen_source
from datamodules.tools.index import write_indexes
from datamodules.tools.pack import pack
from datamodules.tools.split_rule import SplitRule
from datamodules.tools.verify import verify
from pretzel.__main__ import main
from pretzel.errors import UserError


class Noise(DataSource):
    """Two training shards of 20 pictures, one of 5 for validation; sample ``bad`` is broken."""

    def __init__(self, stop=None, broken=()):
        rng = np.random.default_rng(0)
        self.pictures = [noise_png(rng, 8) for _ in range(20)]
        self.stop, self.broken = stop, broken
        self.count = 0

    def shards(self, split):
        return {"train": ("a", "b"), "val": ("v",), "test": ()}[split]

    def num_samples(self, split):
        return None

    def read(self, shard, first=0, step=1):
        for number in range(first, 5 if shard == "v" else 20, step):
            self.count += 1
            if self.stop is not None and self.count > 27:
                self.stop()
            key = f"{shard}/{number:02d}"
            picture = b"<html>" if key in self.broken else self.pictures[number]
            members = {"png": picture, "txt": f"picture {key}".encode()}
            yield RawSample(shard=shard, key=key, members=members)


class TrainOnly(Noise):
    """The training samples of the other."""

    def shards(self, split):
        return super().shards(split) if split == "train" else ()


def files(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def interrupt():
    raise KeyboardInterrupt


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


@pytest.fixture
def packed(tmp_path):
    pack(Noise(), tmp_path / "p", name="noise", shard_size=10, license_text="CC0")
    return tmp_path / "p"


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
    left = [9]

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


def test_verify_names_what_is_broken(packed, tmp_path, capsys):
    assert subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=packed).returncode == 0
    assert main(["data", "verify", str(packed), "--workers", "0"]) == 0
    assert capsys.readouterr().out.endswith("files are whole\n")
    assert len(read_index(packed / "train-00000.tar")) == 10
    number, broken = verify([str(packed)])
    assert broken == []
    first = packed / "train-00000.tar"
    content = first.read_bytes()
    first.write_bytes(content[:3000])
    second = packed / "train-00001.tar"
    picture = second.read_bytes()
    at = picture.index(b"IDAT") + 8
    second.write_bytes(picture[:at] + b"\0" * 40 + picture[at + 40 :])
    (packed / "LICENSE.txt").unlink()
    (packed / "train-00009.tar").write_bytes(content)
    assert main(["data", "verify", str(packed), "--workers", "2"]) == 1
    told = capsys.readouterr().out
    assert "LICENSE.txt: is in SHA256SUMS, but missing" in told
    assert "train-00000.tar: differs from its SHA-256; 1 samples are whole, not: the rest (" in told
    assert "train-00001.tar: differs from its SHA-256; 9 samples are whole, not: a/10" in told
    assert "train-00009.tar: is not in SHA256SUMS" in told
    assert told.endswith(f"4 of {number + 1} files are broken\n")
    (packed / "SHA256SUMS").write_text("no hash\n")
    with pytest.raises(UserError, match=r"SHA256SUMS:1: a line must be 'SHA256  PATH', got"):
        verify([str(packed)])
    with pytest.raises(UserError, match=r"nowhere: no such file or folder"):
        verify(["nowhere"])


def test_verify_looks_at_indexes_that_no_list_names(packed):
    hashes = packed / "SHA256SUMS"
    lines = [line for line in hashes.read_text().splitlines() if not line.endswith(".index")]
    hashes.write_text("\n".join(lines) + "\n")
    assert verify([str(packed)])[1] == []
    index = packed / "train-00001.tar.index"
    numbers = np.load(index)
    numbers[-1] += 512  # where no sample begins
    with index.open("wb") as file:
        np.save(file, numbers)
    (broken,) = verify([str(packed)])[1]
    assert str(broken) == f"{index.with_suffix('')}: is whole, but its index is not of this shard"


def test_verify_names_a_folder_that_was_not_packed_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr("datamodules.tools.pack._CHUNK", 4)
    with pytest.raises(KeyboardInterrupt):
        pack(Noise(interrupt), tmp_path / "p", name="noise", shard_size=6)
    number, (broken,) = verify([str(tmp_path)])
    assert number == 5  # four shards and the folder
    assert str(broken) == f"{tmp_path / 'p'}: pack has not completed it; the same command continues"


def test_verify_tells_of_a_shard_alone_what_it_tells_of_its_folder(packed):
    (packed / "other.tar").write_bytes((packed / "train-00000.tar").read_bytes())
    (broken,) = verify([str(packed / "other.tar")])[1]
    assert broken.reason == "is not in SHA256SUMS"


def test_keys_of_anybody_do_not_steer_the_terminal(write_shard, capsys):
    shard = write_shard("a.tar", {"x\x1b[31m\n.png": b"no", "x\x1b[31m\n.txt": b"t"})
    assert main(["data", "verify", shard, "--workers", "0"]) == 1
    told = capsys.readouterr().out
    assert "\x1b" not in told
    assert len(told.splitlines()) == 2


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


def test_the_shards_of_a_blend_are_indexed_and_compared_with_their_lists(
    packed, write_shard, encoded, tmp_path, capsys
):
    shard = Path(write_shard("a.tar", {"x.png": encoded(), "x.txt": b"t"}))
    recipe = "{class_path: datamodules.Captions}, weight: 1.0}"
    parts = [
        f"{{name: p{number}, source: {{class_path: datamodules.Shards, init_args: {{train: "
        f"'{path}'}}}}, recipe: {recipe}"
        for number, path in enumerate((shard, packed / "train-00000.tar"))
    ]
    config = tmp_path / "blend.yaml"
    config.write_text(
        f"class_path: datamodules.Blend\ninit_args: {{parts: [{', '.join(parts)}]}}\n"
    )
    assert main(["data", "index", "-c", str(config), "--workers", "0"]) == 0
    assert capsys.readouterr().out == "2 indexes are written\n"
    assert len(read_index(shard)) == 1
    assert main(["data", "verify", "-c", str(config), "--workers", "0"]) == 0
    (packed / "SHA256SUMS").write_text(f"{'0' * 64}  train-00000.tar\n")
    assert main(["data", "verify", "-c", str(config), "--workers", "0"]) == 1
    assert "differs from its SHA-256" in capsys.readouterr().out


def test_indexes_are_written_on_demand(write_shard, encoded, tmp_path, capsys):
    members = {
        f"{n}.{s}": encoded() if s == "png" else b"t" for n in range(3) for s in ("png", "txt")
    }
    shard = Path(write_shard("a.tar", members))
    packed = tmp_path / "b.tar.gz"
    packed.write_bytes(gzip.compress(shard.read_bytes()))
    (tmp_path / "cut.tar").write_bytes(shard.read_bytes()[:2000])
    indexed = write_indexes([str(shard), str(packed), str(tmp_path / "cut.tar"), "s3://b/c.tar"])
    assert (indexed.num_written, indexed.num_sequential) == (1, 2)
    (failure,) = indexed.failures
    assert "cut.tar' cannot be indexed" in failure
    assert len(read_index(shard)) == 3
    index = shard.with_name("a.tar.index")
    content = index.read_bytes()
    index.unlink()
    args = [str(shard), "--workers", "0", "--out", str(tmp_path / "look"), "--index"]
    assert main(["data", "inspect", *args]) == 0
    assert capsys.readouterr().out.endswith("1 indexes are written\n")
    assert index.read_bytes() == content
    index.write_bytes(content[:-8])
    (_, (broken,)) = verify([str(shard)])
    assert broken.reason == "is whole, but its index is not of this shard"


def test_shards_that_no_list_names_are_read(write_shard, encoded, tmp_path):
    shard = write_shard("a.tar", {"x.png": encoded(), "x.txt": b"t", "y.png": b"no", "y.txt": b"t"})
    (number, (broken,)) = verify([shard])
    assert number == 1
    assert broken.reason.startswith("1 samples are whole, not: y (")


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
        ("pack", "nowhere.tar", "--out", "o"): "nowhere.tar",
        ("verify", "nowhere.tar"): "nowhere.tar",
        ("inspect", "x.tar", "--limit", "0"): "limit must be at least 1, not 0",
        ("pack", "x.tar", "--out", "bad.yaml/o"): "bad.yaml/o: cannot be written (Not a directory)",
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
