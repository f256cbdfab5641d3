"""Shards behind addresses: web servers with faults, an S3 server; every fault one sentence."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from faulty_server import faulty_server

from datamodules import Captions, Shards, WebDatasetDataModule
from datamodules.reading import remote
from datamodules.reading.opening import open_shard
from datamodules.reading.remote import RemoteFiles
from datamodules.sample import Skipped
from pretzel.errors import UserError
from pretzel.runs.selection import why_test_data


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """Pauses between tries, noted instead of waited for; pieces far smaller than a shard."""
    pauses = []
    monkeypatch.setattr(remote, "time", SimpleNamespace(sleep=pauses.append))
    monkeypatch.setattr(remote, "PIECE", 4096)
    monkeypatch.setattr(remote, "_exhausted", set())
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
        "slow1/",
        "500x2/",
        "429x1/",
        "cut0x1/",
        "cut5000x3/",
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


@pytest.mark.parametrize(
    ("path", "said"),
    [("none.tar", "does not exist"), ("403/a.tar", "is refused"), ("400/a.tar", "400")],
)
def test_what_does_not_pass_is_tried_once(server, path, said):
    assert said in refusal(server.address(path))
    assert server.requests[f"/{path}"] == 1


def test_a_server_that_is_too_slow_or_not_there(server):
    assert "tried 2 times" in refusal(server.address("slow9/00000.tar"), attempts=2, timeout=0.1)
    assert "tried 2 times" in refusal("http://127.0.0.1:9/a.tar", attempts=2)


def test_a_shard_that_breaks_off_for_good_gives_its_beginning(server):
    source = Shards(server.address("cut25000/00000.tar"), attempts=3)
    (shard,) = source.shards("train")
    *samples, rest = source.read(shard)
    assert [sample.key for sample in samples] == [f"00_{i:03d}" for i in range(7)]
    assert isinstance(rest, Skipped)
    assert (rest.shard, rest.key) == (shard, "*")
    assert "tried 3 times" in rest.detail
    requests = server.requests["/cut25000/00000.tar"]
    list(source.read(shard))  # in the next epoch
    assert server.requests["/cut25000/00000.tar"] == requests + 8  # seven pieces, one try


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
    assert sum(server.sent[path] for path in ("/00000.tar",)) <= 1
    Path(tmp_path / "00000.tar").touch()
    assert data.manifest()["train/0"] != first["train/0"]
