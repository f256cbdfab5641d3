"""`pretzel data verify` and `index`: what is broken is named, what is whole is not."""

import gzip
import subprocess
from pathlib import Path

import numpy as np
import pytest
from noise_source import Noise, interrupt

from datamodules.reading.index import read_index
from datamodules.tools.index import write_indexes
from datamodules.tools.pack import pack
from datamodules.tools.verify import verify
from pretzel.__main__ import main
from pretzel.errors import UserError


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
