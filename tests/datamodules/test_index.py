"""Shards are sought: any part of them, with and without an index, and as little as is asked for."""

import gzip
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from datamodules import Skipped
from datamodules.reading import archive
from datamodules.reading.index import read_index, write_index
from datamodules.reading.tar_shard import read_shard
from pretzel.errors import UserError

PARTS = ((0, 1), (0, 3), (2, 1), (5, 4), (9, 1), (10, 1), (40, 7))


@pytest.fixture
def read_bytes(monkeypatch):
    """Count the bytes of members that are read."""
    sizes = []
    original = archive._content

    def content(tar, member):
        sizes.append(member.size)
        return original(tar, member)

    monkeypatch.setattr(archive, "_content", content)
    return sizes


@pytest.fixture
def shard(write_shard):
    """Ten samples, with long names, members that are not read, and a folder."""
    members = {"readme": b"x" * 900}
    for number in range(10):
        key = f"{'long' * 40}/{number:03d}" if number % 3 == 1 else f"{number:03d}"
        members |= {f"{key}.npy": b"y" * 700, f"{key}.png": b"p" * 600, f"{key}.txt": b"text"}
    return write_shard("a.tar", members)


@pytest.mark.parametrize("has_index", [False, True])
def test_a_part_is_the_part_of_the_whole(shard, has_index):
    copy = Path(shard).with_suffix(".tar.gz")
    copy.write_bytes(gzip.compress(Path(shard).read_bytes()))
    keys = [(sample.key, sample.members) for sample in read_shard(str(copy))]
    assert len(keys) == 10
    if has_index:
        write_index(shard)
    for first, step in PARTS + PARTS[::-1]:  # what was read before is known
        part = [(sample.key, sample.members) for sample in read_shard(shard, first, step)]
        assert part == keys[first::step], (first, step)


def test_nothing_but_the_part_is_read(shard, read_bytes):
    list(read_shard(shard, 4, 5))
    assert read_bytes == [600, 4] * 2


@pytest.mark.parametrize("first", [0, 3, 9])
def test_an_index_leads_straight_to_a_sample(shard, first, monkeypatch):
    write_index(shard)
    walked = []
    original = archive._members
    monkeypatch.setattr(
        archive, "_members", lambda tar: (walked.append(m) or m for m in original(tar))
    )
    next(read_shard(shard, first))
    assert len(walked) <= 3
    assert len(read_index(shard)) == 10


def test_damage_is_where_it_would_be_in_sequence(shard_pattern, tmp_path):
    whole = tmp_path / "00000.tar"
    with tarfile.open(whole) as tar:
        end = tar.getmember("00_005.json").offset + 600
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole.read_bytes()[:end])
    for _ in range(2):
        for first, step in PARTS:
            part = list(read_shard(str(cut), first, step))
            kinds = [sample.key for sample in part]
            assert kinds == [*(f"00_{number:03d}" for number in range(5)), "*"][first::step]
    with pytest.raises(UserError, match=r"cut.tar' cannot be indexed: unexpected end of data"):
        write_index(cut)
    assert not Path(f"{cut}.index").exists()


@pytest.mark.parametrize("is_compressed", [False, True])
def test_joined_shards_are_read_to_their_ends(shard, write_shard, tmp_path, is_compressed):
    shards = [shard, write_shard("b.tar", {"z.txt": b"t", "zz.txt": b"t"})]
    keys = [(sample.key, sample.members) for path in shards for sample in read_shard(path)]
    tars = [Path(path).read_bytes() for path in shards]
    joined = tmp_path / "joined.tar"
    joined.write_bytes(b"".join(map(gzip.compress, tars) if is_compressed else tars))
    for first, step in PARTS:
        part = [(sample.key, sample.members) for sample in read_shard(str(joined), first, step)]
        assert part == keys[first::step], (first, step)
    if not is_compressed:
        write_index(joined)
        assert len(read_index(joined)) == 12
    parts, cut = [tars[0], tars[1][:2048]], tmp_path / "cut.tar"
    cut.write_bytes(b"".join(map(gzip.compress, parts) if is_compressed else parts))
    assert [sample.key for sample in read_shard(str(cut), 9)] == ["009", "z", "*"]


def test_an_index_of_another_shard_is_not_used(shard, write_shard):
    index = write_index(shard)
    assert write_index(shard).read_bytes() == index.read_bytes()
    other = write_shard("b.tar", {f"{i}.txt": b"t" * 700 * i for i in range(40)})
    index.rename(f"{other}.index")
    with pytest.warns(UserWarning, match=r"b\.tar\.index is not the index of its shard"):
        assert [sample.key for sample in read_shard(other, 30)] == [str(i) for i in range(30, 40)]
    zipped = io.BytesIO()
    np.savez(zipped, np.zeros(1))
    array = io.BytesIO()
    np.save(array, np.zeros(4, dtype="<i8"))
    endless = array.getvalue().replace(b"(4,), }" + b" " * 12, b"(%d,), }" % 10**12)
    for content in (b"no numbers", zipped.getvalue(), endless):
        Path(f"{other}.index").write_bytes(content)
        with pytest.warns(UserWarning, match=r"b\.tar\.index is not the index of its shard"):
            assert read_index(other) is None


def test_a_sample_that_is_no_longer_where_it_was(shard):
    write_index(shard)
    samples = list(read_shard(shard))
    status = os.stat(shard)
    with open(shard, "r+b") as file:
        file.seek(read_index(shard)[5])
        file.write(b"?" * 512)
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
    (rest,) = read_shard(shard, 4)  # it would end where the next one begins
    assert isinstance(rest, Skipped)
    assert list(read_shard(shard, 2)) == [*samples[2:4], rest]
    assert list(read_shard(shard, 5)) == []


def test_shards_without_index_are_named(tmp_path, shard):
    packed = tmp_path / "a.tar.gz"
    packed.write_bytes(gzip.compress(Path(shard).read_bytes()))
    with pytest.raises(UserError, match="cannot be indexed: it is compressed"):
        write_index(packed)
    with pytest.raises(UserError, match="does not exist"):
        write_index(tmp_path / "none.tar")
