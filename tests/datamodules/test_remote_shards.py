"""Shards behind addresses: web servers with faults, an S3 server; every fault one sentence."""

import contextlib
import hashlib
import multiprocessing
import os
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest
from faulty_server import faulty_server

from datamodules import Captions, Shards, WebDatasetDataModule
from datamodules.reading import pieces, remote
from datamodules.reading.cache import ShardCache
from datamodules.reading.opening import open_shard
from datamodules.reading.remote import RemoteFiles
from datamodules.sample import Skipped
from datamodules.tools.chosen_source import chosen_source
from pretzel.errors import UserError
from pretzel.runs.selection import why_test_data


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """Pauses between tries, noted instead of waited for; pieces far smaller than a shard."""
    pauses = []
    monkeypatch.setattr(remote, "time", SimpleNamespace(sleep=pauses.append))
    monkeypatch.setattr(pieces, "PIECE", 8192)
    monkeypatch.setattr(remote, "_exhausted", {})
    return pauses


@pytest.fixture
def server(shard_pattern, tmp_path):
    with faulty_server(tmp_path) as server:
        yield server


def read(address, attempts=3, timeout=5.0):
    with open_shard(address, RemoteFiles(attempts=attempts, timeout=timeout)) as stream:
        return stream.read()


def refusal(address, **arguments):
    with pytest.raises(UserError) as error:
        read(address, **arguments)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "fault",
    [
        "",
        "plain/",
        "redirect/",
        "slow1x1/",
        "500x2/",
        "429x1/",
        "cut0x1/",
        "cut5000x2/",
        "plain/cut5000x2/",
        "redirect/plain/cut9000x1/500x1/",
    ],
)
def test_every_byte_comes_through_faults_that_pass(server, tmp_path, fault):
    assert read(server.address(f"{fault}00000.tar")) == (tmp_path / "00000.tar").read_bytes()


def test_pauses_double_and_tries_are_counted(server, pauses):
    message = refusal(server.address("500/00000.tar"), attempts=4)
    assert "/500/00000.tar' cannot be read, tried 4 times: 500" in message
    assert (server.requests["/500/00000.tar"], pauses) == (4, [1, 2, 4])
    assert "tried once" in refusal(server.address("500/00000.tar"), attempts=4)
    assert server.requests["/500/00000.tar"] == 5


@pytest.mark.parametrize("path", ["500x2/00000.tar", "cut9000x2/00000.tar"])
def test_an_address_that_is_well_again_has_all_its_tries(server, path):
    address = server.address(path)
    source = Shards(address, attempts=2)
    for _ in range(2):
        server.requests[f"/{path}"] = 0  # an outage of two requests
        with contextlib.suppress(UserError):
            assert len(list(source.read(address))) < 11
        assert [sample.key for sample in source.read(address)][-1] == "00_009"
        server.requests[f"/{path}"] = 1  # of one
        assert [sample.key for sample in source.read(address)][-1] == "00_009"


def test_a_piece_is_no_larger_than_was_asked_for():
    sent = []

    def read(most):
        sent.append(bytes(most))
        assert len(sent) < 9
        return sent[-1]

    headers = {"Content-Range": "bytes 0-8191/99999"}
    answer = SimpleNamespace(
        r=SimpleNamespace(status=206, headers=headers), read=read, close=lambda: None
    )
    files = SimpleNamespace(open=lambda *args, **kwargs: answer)
    assert len(pieces.HTTPPieces(files, "http://host/a.tar").fetch(0)) == 8192


@pytest.mark.parametrize(
    ("path", "said"),
    [("none.tar", "does not exist"), ("403/a.tar", "is refused"), ("400/a.tar", "400")],
)
def test_what_does_not_pass_is_tried_once(server, path, said):
    assert said in refusal(server.address(path))
    assert server.requests[f"/{path}"] == 1


def test_missing_credentials_are_said_at_once(pauses):
    exceptions = pytest.importorskip("botocore.exceptions", reason="s3fs reads s3:// by botocore")

    def action():
        raise exceptions.NoCredentialsError

    with pytest.raises(UserError, match=r"access to 's3://b/a\.tar' is refused: Unable to locate"):
        RemoteFiles().retry("s3://b/a.tar", action)
    assert pauses == []


def test_a_server_that_is_too_slow_or_not_there(server):
    assert "tried 2 times" in refusal(server.address("slow9/00000.tar"), attempts=2, timeout=0.1)
    assert "tried 2 times" in refusal("http://127.0.0.1:9/a.tar", attempts=2)


def test_a_shard_that_breaks_off_for_good_gives_its_beginning(server):
    source = Shards(server.address("cut24576/00000.tar"), attempts=3)
    (shard,) = source.shards("train")
    *samples, rest = source.read(shard)
    assert [sample.key for sample in samples] == [f"00_{i:03d}" for i in range(7)]
    assert isinstance(rest, Skipped)
    assert (rest.shard, rest.key) == (shard, "*")
    assert "tried 3 times" in rest.detail
    requests = server.requests["/cut24576/00000.tar"]
    list(source.read(shard))  # in the next epoch
    # Three whole pieces and a single try of the fourth.
    assert server.requests["/cut24576/00000.tar"] - requests == 4


def test_a_run_ends_in_a_sentence_after_so_many_tries(server):
    good = server.address("{00000..00002}.tar")
    source = Shards([good, server.address("500/00003.tar")], attempts=3)
    data = WebDatasetDataModule(
        source, Captions(), 16, batch_size=4, steps_per_epoch=90, num_workers=2, shuffle_buffer=4
    )
    with pytest.raises(UserError, match=r"500/00003\.tar' cannot be read, tried 3 times"):
        list(data.train_dataloader())
    assert server.requests["/500/00003.tar"] == 3


def test_wildcards_braces_and_lists_of_addresses(server):
    source = Shards(f"{server.address('0000[12].tar')}::{server.address('0000{5,4}.tar')}")
    assert [shard[-9:] for shard in source.shards("train")] == [
        f"0000{number}.tar" for number in (1, 2, 5, 4)
    ]
    with pytest.raises(UserError, match=r"train shards 'http.*x\*\.tar': nothing matches"):
        Shards(server.address("x*.tar")).shards("train")


@pytest.mark.parametrize("address", ["ftp://host/a.tar", "file:///a.tar", "gs://bucket/a.tar"])
def test_other_protocols_and_missing_packages_are_named(address):
    said = r"pretzel-starflow\[remote\]" if address.startswith("gs") else "must begin with one of"
    with pytest.raises(UserError, match=said):
        read(address)


def test_identity_is_size_and_tag_and_nothing_is_read(server, tmp_path):
    train, val = server.address("00000.tar"), server.address("plain/00001.tar")
    data = WebDatasetDataModule(
        Shards(train, val=val, test=val), Captions(), 16, batch_size=2, steps_per_epoch=1
    )
    first = data.manifest()
    size = (tmp_path / "00000.tar").stat().st_size
    assert first["train/0"].startswith(f"{train} {size} ")
    assert len(first["val/0"].split()) == 3
    assert "reads 00001.tar for val and for test" in why_test_data(data)
    assert data.example_documents(4) == []  # which a plan would count
    assert server.sent["/00000.tar"] == 1
    Path(tmp_path / "00000.tar").touch()
    assert data.manifest()["train/0"] != first["train/0"]


def cached_names(folder):
    return sorted(path.name[:9] for path in folder.glob("*.copy"))


def test_copies_are_whole_and_within_the_limit_and_the_oldest_go(server, tmp_path):
    size = (tmp_path / "00000.tar").stat().st_size
    cache = ShardCache(folder=tmp_path / "cache", max_bytes=2 * size + 100)
    files = RemoteFiles(attempts=2)
    other = cache.folder / "thesis.tar"
    other.parent.mkdir()
    other.write_bytes(bytes(10 * size))

    def read(name):
        with open_shard(server.address(name), files, cache) as stream:
            assert stream.read() == (tmp_path / name[-9:]).read_bytes()
        assert sum(path.stat().st_size for path in cache.folder.glob("*.*.*")) <= cache.max_bytes

    for name in ("00000.tar", "00001.tar", "00000.tar", "00002.tar", "cut9000x1/00000.tar"):
        read(name)
    # Another address of 00000.tar took the place of its copy, which was not used for longest.
    assert cached_names(cache.folder) == ["00000.tar", "00002.tar"]
    assert server.sent["/00000.tar"] <= size + 2  # twice asked for size and tag, read once
    with pytest.raises(OSError, match="tried"):
        open_shard(server.address("cut9000/00003.tar"), files, cache).read()
    assert not list(cache.folder.glob("*.part"))
    assert other.exists()
    small = ShardCache(folder=cache.folder, max_bytes=size - 1)
    assert open_shard(server.address("00004.tar"), files, small).read()
    assert "00004.tar" not in cached_names(cache.folder)


def test_a_copy_that_cannot_be_kept_is_none(server, tmp_path, monkeypatch):
    cache = ShardCache(folder=tmp_path / "cache", max_bytes=10**6)
    content = (tmp_path / "00000.tar").read_bytes()

    def full(file):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with open_shard(server.address("00000.tar"), RemoteFiles(), cache) as stream:
            assert stream.read() == content
    assert [path.name for path in cache.folder.iterdir()] == [".lock"]


def test_another_process_keeps_the_file_that_it_downloads(server, tmp_path, monkeypatch):
    cache = ShardCache(folder=tmp_path / "cache", max_bytes=10**6)
    replace = Path.replace

    def replaced(part, path):
        replace(part, path)
        part.touch()  # of a process that found the copy evicted at once

    monkeypatch.setattr(Path, "replace", replaced)
    open_shard(server.address("00000.tar"), RemoteFiles(), cache).close()
    assert len(list(cache.folder.glob("*.part"))) == 1


def test_processes_share_one_download(server, tmp_path):
    cache = ShardCache(folder=tmp_path / "cache", max_bytes=10**6)
    (tmp_path / "cache").mkdir()
    abandoned = tmp_path / "cache" / f"old.tar.{0:016x}.part"
    abandoned.write_bytes(bytes(10**6))  # of a process that was killed
    address = server.address("slow1/00000.tar")
    context = multiprocessing.get_context("fork")
    with context.Pool(3) as pool:
        results = pool.starmap(_read_cached, [(address, cache)] * 3)
    assert set(results) == {(tmp_path / "00000.tar").read_bytes()}
    size = (tmp_path / "00000.tar").stat().st_size
    assert server.sent["/slow1/00000.tar"] == size + 3
    assert cached_names(cache.folder) == ["00000.tar"]


def _read_cached(address, cache):
    with open_shard(address, RemoteFiles(), cache) as stream:
        return stream.read()


@pytest.fixture(scope="module")
def bucket():
    """An S3 server on loopback with a bucket."""
    moto_server = pytest.importorskip("moto.server", reason="moto serves S3 on loopback")
    pytest.importorskip("s3fs", reason="s3fs reads s3://")
    server = moto_server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        environment.setenv("AWS_ACCESS_KEY_ID", "test")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "test")
        files = fsspec.filesystem("s3")
        files.mkdir("bucket")
        yield files
    server.stop()


def test_a_folder_of_a_bucket_is_its_shards_in_their_splits(bucket, shard_pattern, tmp_path):
    for number, name in enumerate(("train-00000", "train-00001", "val-00000")):
        bucket.put(str(tmp_path / f"0000{number}.tar"), f"bucket/packed/{name}.tar")
    bucket.pipe("bucket/packed/LICENSE.txt", b"CC0")
    for folder in ("s3://bucket/packed", "s3://bucket/packed/"):
        source = chosen_source([folder], []).source
        assert source.shards("train") == tuple(
            f"s3://bucket/packed/train-0000{i}.tar" for i in (0, 1)
        )
        assert source.shards("val") == ("s3://bucket/packed/val-00000.tar",)
    assert chosen_source(["s3://bucket/packed/val-00000.tar"], []).source.shards("train") == (
        "s3://bucket/packed/val-00000.tar",
    )
    bucket.pipe("bucket/texts/a.txt", b"")
    with pytest.raises(UserError, match="s3://bucket/texts: holds no tar shard"):
        chosen_source(["s3://bucket/texts"], [])


def test_shards_of_a_bucket(bucket, shard_pattern, tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 2**14)
    for number in range(4):
        bucket.put(str(tmp_path / f"0000{number}.tar"), f"bucket/cc/0000{number}.tar")
    source = Shards("s3://bucket/cc/0000[0-2].tar", val="s3://bucket/cc/0000{3..3}.tar", attempts=2)
    assert source.shards("train") == tuple(f"s3://bucket/cc/0000{i}.tar" for i in range(3))
    keys = [sample.key for sample in source.samples("train", 16)]
    assert keys == [f"{shard:02d}_{i:03d}" for shard in range(3) for i in range(10)]
    (identity,) = source.identities(source.shards("val"))
    tag = hashlib.md5((tmp_path / "00003.tar").read_bytes()).hexdigest()
    size = (tmp_path / "00003.tar").stat().st_size
    assert identity == f"s3://bucket/cc/00003.tar {size} {tag}"
    for missing, said in (
        ("s3://bucket/cc/9.tar", "does not exist"),
        ("s3://none/*.tar", "nothing matches"),
    ):
        with pytest.raises(UserError, match=said):
            list(Shards(missing).samples("train", 16))
    batches = WebDatasetDataModule(
        source,
        Captions(drop=0.0),
        16,
        batch_size=2,
        steps_per_epoch=3,
        num_workers=1,
        shuffle_buffer=4,
    ).train_dataloader()
    assert len(list(batches)) == 3
