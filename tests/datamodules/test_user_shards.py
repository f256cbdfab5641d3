"""A user's own shards: the layout read right, and every mistake one clear sentence."""

import gzip
import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules import Captions, EasyVQA, Shards, WebDatasetDataModule
from datamodules.reading.tar_shard import RawSample, read_shard
from pretzel.errors import UserError


def module(source, recipe=None, **changes):
    arguments = {"image_size": 16, "batch_size": 2, "steps_per_epoch": 2, "shuffle_buffer": 4}
    return WebDatasetDataModule(source, recipe or Captions(drop=0.0), **(arguments | changes))


def check_message(error, *parts):
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "webp"])
def test_every_image_format_with_its_caption(write_shard, encoded, suffix):
    color = (250, 120, 10)
    image = encoded(color, (16, 16), suffix.replace("jpg", "jpeg"))
    shard = write_shard("a.tar", {f"x.{suffix}": image, "x.txt": b"an orange square\n"})
    (sample,) = Shards(shard).samples("train", 16)
    assert (sample.key, sample.caption) == ("x", "an orange square")
    assert np.abs(sample.pixels.astype(int) - color).max() < 12


def test_caption_field_of_json_and_text_first(write_shard, encoded):
    fields = json.dumps({"alt": "from json", "caption": "another"}).encode()
    shard = write_shard(
        "a.tar",
        {"x.png": encoded(), "x.json": fields, "y.png": encoded(), "y.json": fields, "y.txt": b"t"},
    )
    captions = [s.caption for s in Shards(shard, caption_field="alt").samples("train", 16)]
    assert captions == ["from json", "t"]


def test_braces_and_lists_expand_in_order(shard_pattern, tmp_path):
    source = Shards([f"{tmp_path}/0000{{3,1}}.tar", f"{tmp_path}/00000.tar"])
    assert [shard[-9:] for shard in source.shards("train")] == [
        "00003.tar",
        "00001.tar",
        "00000.tar",
    ]
    assert len(Shards(shard_pattern).shards("train")) == 6


def test_folders_and_compression_inside_shards(write_shard, encoded, tmp_path):
    shard = Path(
        write_shard(
            "a.tar", {"d/x.png": encoded(), "d/x.txt": b"t", "e/x.png": encoded(), "e/x.txt": b"u"}
        )
    )
    packed = tmp_path / "a.tar.gz"
    packed.write_bytes(gzip.compress(shard.read_bytes()))
    assert [s.key for s in Shards(str(packed)).samples("train", 16)] == ["d/x", "e/x"]


def test_shorter_side_is_resized_and_the_centre_cropped(write_shard):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (32, 64, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    shard = write_shard("a.tar", {"x.png": buffer.getvalue(), "x.txt": b"t"})
    (sample,) = Shards(shard).samples("train", 16)
    expected = image.resize((32, 16), Image.Resampling.BICUBIC).crop((8, 0, 24, 16))
    assert np.abs(sample.pixels.astype(int) - np.asarray(expected).astype(int)).max() <= 1


def test_reduction_is_antialiased(write_shard):
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.stack([board] * 3, -1)).save(buffer, "PNG")
    shard = write_shard("a.tar", {"x.png": buffer.getvalue(), "x.txt": b"t"})
    (sample,) = Shards(shard).samples("train", 16)
    assert np.abs(sample.pixels.astype(int) - 127).max() <= 4


def test_transparent_pixels_are_white(write_shard):
    buffer = io.BytesIO()
    Image.new("RGBA", (16, 16), (0, 0, 0, 0)).save(buffer, "PNG")
    shard = write_shard("a.tar", {"x.png": buffer.getvalue(), "x.txt": b"t"})
    (sample,) = Shards(shard).samples("train", 16)
    assert (sample.pixels == 255).all()


def test_missing_shard_is_named_before_training(shard_pattern, tmp_path):
    datamodule = module(Shards(f"{tmp_path}/0000{{4..6}}.tar"))
    with pytest.raises(UserError) as error:
        datamodule.setup("fit")
    check_message(error, "train shard", tmp_path / "00006.tar", "does not exist")


def test_missing_validation_shard_is_named(shard_pattern, tmp_path):
    with pytest.raises(UserError) as error:
        module(Shards(shard_pattern, val=str(tmp_path / "none.tar"))).setup("fit")
    check_message(error, "val shard", "none.tar")


def test_a_shard_that_went_away_has_no_identity(shard_pattern, tmp_path):
    source = Shards(shard_pattern)
    shards = source.shards("train")
    (tmp_path / "00003.tar").unlink()
    with pytest.raises(UserError, match=r"00003\.tar' does not exist"):
        source.identities(shards)


@pytest.mark.parametrize("value", [0.0, float("inf"), float("nan")])
def test_a_limit_of_copies_is_a_number(value):
    with pytest.raises(UserError, match=r"cache_gigabytes must be a number above 0, not"):
        Shards("a.tar", cache_gigabytes=value)


def test_unbalanced_braces_are_named():
    with pytest.raises(UserError) as error:
        Shards("x/{000..001.tar").shards("train")
    check_message(error, "x/{000..001.tar", "braces")


def test_pipe_is_refused_unless_allowed(shard_pattern, tmp_path, monkeypatch):
    command = f"pipe:cat {tmp_path}/00000.tar"
    with pytest.raises(UserError) as error:
        module(Shards(command)).setup("fit")
    check_message(error, command, "PRETZEL_ALLOW_PIPE=1")
    monkeypatch.setenv("PRETZEL_ALLOW_PIPE", "1")
    samples = Shards(command).samples("train", 16)
    assert [sample.key for sample in samples] == [f"00_{i:03d}" for i in range(10)]


def test_a_command_that_fails_is_a_damaged_shard(shard_pattern, tmp_path, monkeypatch):
    monkeypatch.setenv("PRETZEL_ALLOW_PIPE", "1")
    shard = tmp_path / "00000.tar"
    *samples, rest = read_shard(f"pipe:cat {shard}; exit 3")
    assert len(samples) == 10
    assert (rest.key, rest.detail) == ("*", "the command ended with status 3")
    command = f"pipe:cat {shard} - < /dev/zero || exit 7"  # more than is needed
    stopped = read_shard(command)
    assert next(stopped).key == "00_000"
    stopped.close()


def test_a_refused_pipe_does_not_run(tmp_path):
    with pytest.raises(UserError):
        list(Shards(f"pipe:touch {tmp_path}/ran").samples("train", 16))
    assert not (tmp_path / "ran").exists()


def test_wildcards_and_lists_of_local_shards(shard_pattern, tmp_path):
    source = Shards(f"{tmp_path}/0000[1-3].tar::{tmp_path}/**/0000{{5,4}}.tar")
    assert [shard[-9:] for shard in source.shards("train")] == [
        f"0000{number}.tar" for number in (1, 2, 3, 5, 4)
    ]
    with pytest.raises(UserError) as error:
        Shards(shard_pattern, val=f"{tmp_path}/x*.tar").shards("val")
    check_message(error, "val shards", "x*.tar", "nothing matches")


def test_nothing_is_unpickled(write_shard, encoded, tmp_path):
    bomb = pickle.dumps(Bomb(tmp_path / "exploded"))
    members = {"x.png": encoded(), "x.txt": b"t"}
    members |= {f"x.{s}": bomb for s in ("pyd", "pth", "pkl", "pickle", "npy", "pt", "cls")}
    shard = write_shard("a.tar", members)
    (raw,) = read_shard(shard)
    assert isinstance(raw, RawSample)
    assert set(raw.members) == {"png", "txt"}
    next(iter(module(Shards(shard)).train_dataloader()))
    assert not (tmp_path / "exploded").exists()
    pickle.loads(bomb)
    assert (tmp_path / "exploded").exists()


def test_pickle_named_as_image_or_json_is_a_corrupt_sample(write_shard, encoded, tmp_path):
    bomb = pickle.dumps(Bomb(tmp_path / "exploded"))
    shard = write_shard(
        "a.tar",
        {
            "a.png": bomb,
            "a.txt": b"t",
            "b.png": encoded(),
            "b.json": bomb,
            "c.png": encoded(),
            "c.txt": b"t",
        },
    )
    assert [sample.key for sample in Shards(shard).samples("train", 16)] == ["c"]
    assert not (tmp_path / "exploded").exists()


def header(name, size, kind=tarfile.REGTYPE):
    """The header of a member that says that it is of a size."""
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def extended(*records):
    """A pax header with records of 10 to 99 bytes."""
    content = b"".join(b"%d %s\n" % (len(record) + 4, record) for record in records)
    return header("x", len(content), tarfile.XHDTYPE) + content.ljust(512, b"\0")


HOSTILE = {
    "names of names": (header("x", 4, tarfile.GNUTYPE_LONGNAME) + b"abc".ljust(512, b"\0")) * 900,
    "a name that fills the memory": header("x", 2**40, tarfile.GNUTYPE_LONGNAME),
    "attributes that fill the memory": header("x", 2**40, tarfile.XHDTYPE),
    "a member without end": header("x.npy", 2**62),
    "a negative size": header("x.txt", -512),
    "a size that leads back": extended(b"size=-1536") + header("x.txt", 0),
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_a_hostile_archive_ends_where_it_is_hostile(write_shard, tmp_path, hostile, suffix):
    good = Path(write_shard("good.tar", {"a.txt": b"t", "b.txt": b"t"})).read_bytes()[:2048]
    content = good + hostile + good + bytes(1024)
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(gzip.compress(content) if suffix == "tar.gz" else content)
    *samples, rest = read_shard(str(path))
    assert [sample.key for sample in samples] == ["a"]
    assert (rest.key, rest.reason) == ("*", "damaged")


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_a_sample_that_would_fill_the_memory_is_skipped(tmp_path, suffix):
    # a file of 2**40 bytes of which one is stored
    sparse = extended(b"GNU.sparse.map=0,1", b"GNU.sparse.size=1099511627776")
    text = b"t".ljust(512, b"\0")
    content = sparse + header("x.txt", 1) + text + header("y.txt", 1) + text + bytes(1024)
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(gzip.compress(content) if suffix == "tar.gz" else content)
    large, small = read_shard(str(path))
    assert (large.key, large.reason) == ("x", "too large")
    assert "files of 1099511627776 bytes" in large.detail
    assert small.members == {"txt": b"t"}


@pytest.mark.parametrize("at", ["in a member", "between two members"])
def test_cut_shard_gives_its_whole_samples_only(shard_pattern, tmp_path, at):
    whole = tmp_path / "00000.tar"
    with tarfile.open(whole) as archive:
        offset = archive.getmember("00_005.json").offset
    end = offset + 600 if at == "in a member" else offset
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole.read_bytes()[:end])
    *samples, last = read_shard(str(cut))
    assert [sample.key for sample in samples] == [f"00_{i:03d}" for i in range(5)]
    assert all(set(sample.members) == {"png", "json"} for sample in samples)
    assert (last.key, last.shard) == ("*", str(cut))


def test_split_that_does_not_exist_is_named(shard_pattern):
    with pytest.raises(UserError, match="Shards has no test shards"):
        module(Shards(shard_pattern)).evaluation_samples()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_size", 0),
        ("batch_size", 0),
        ("steps_per_epoch", 0),
        ("num_workers", -1),
        ("shuffle_buffer", 0),
        ("num_val_samples", 0),
        ("eval_batch_size", 0),
    ],
)
def test_numbers_out_of_range_are_named(name, value):
    with pytest.raises(UserError) as error:
        module(EasyVQA(), **{name: value})
    check_message(error, f"{name} must be at least", f"not {value}")
