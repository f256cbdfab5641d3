"""Samples that cannot serve: each is skipped, counted by its reason and named; the rest is read."""

import json
from collections import Counter
from unittest.mock import Mock

import pytest
from lightning.pytorch import Trainer

from datamodules import (
    AsWritten,
    Captions,
    EasyVQA,
    Mixture,
    Questions,
    Shards,
    Skipped,
    WebDatasetDataModule,
)
from datamodules.decoding.picture import PictureDecoder
from datamodules.streams.eval_stream import EvalStream
from datamodules.streams.loader import EvalLoader
from datamodules.streams.skip_log import SkipLog
from pretzel.errors import UserError


def module(source, recipe=None, **changes):
    arguments = {"image_size": 16, "batch_size": 2, "steps_per_epoch": 2, "shuffle_buffer": 4}
    return WebDatasetDataModule(source, recipe or Captions(drop=0.0), **(arguments | changes))


def skipped(count, reason="no caption", start=0):
    return [Skipped(shard="a.tar", key=f"k{i}", reason=reason) for i in range(start, start + count)]


# The start


@pytest.mark.parametrize(
    ("members", "recipe", "parts"),
    [
        (
            {"x.json": b'{"title": "t"}'},
            Captions(),
            ("1 no caption", "x in ", "Captions", "'caption'", "['title']"),
        ),
        ({"x.txt": b"t"}, Questions(), ("1 no questions", "x in ", "recipe Questions needs")),
        ({"x.png": b"broken", "x.txt": b"t"}, Captions(), ("1 damaged", "x.png")),
        (
            {"x.txt": b"t"},
            Mixture([Questions(), AsWritten()], [1.0, 1.0]),
            ("1 no recipe", "needs questions, recipe AsWritten"),
        ),
    ],
)
def test_what_is_wrong_with_all_samples_is_said_at_the_start(
    write_shard, encoded, members, recipe, parts
):
    shard = write_shard("a.tar", {"x.png": encoded()} | members)
    with pytest.raises(UserError) as error:
        module(Shards(shard), recipe).setup("fit")
    message = str(error.value)
    assert "\n" not in message
    for part in ("none of the first 1 train samples can serve", shard, *parts):
        assert part in message


def test_small_images_are_named_unless_upscale(write_shard, encoded):
    shard = write_shard("a.tar", {"x.png": encoded(size=(40, 12)), "x.txt": b"t"})
    with pytest.raises(
        UserError, match=r"1 too small; such as x in .*x.png: 40x12 pixels.* upscale"
    ):
        module(Shards(shard)).setup("fit")
    batch = next(iter(module(Shards(shard), upscale=True).train_dataloader()))
    assert batch.images.shape == (2, 3, 16, 16)


def test_empty_and_other_shards_are_named_at_the_start(write_shard, tmp_path):
    (tmp_path / "b.tar").write_bytes(b"this is no tar file" * 100)
    source = Shards([write_shard("a.tar", {"readme.md": b"nothing"}), str(tmp_path / "b.tar")])
    with pytest.raises(UserError) as error:
        module(source).setup("fit")
    for part in ("1 empty shard, 1 damaged", "a.tar (empty shard: no member is one of", "b.tar"):
        assert part in str(error.value)


def test_a_validation_split_of_which_nothing_can_be_read_is_refused(write_shard, encoded):
    good = write_shard("a.tar", {"x.png": encoded(), "x.txt": b"t"})
    bad = write_shard("b.tar", {f"{i}.png": b"<html>" for i in range(120)})
    with pytest.raises(UserError, match="none of the first 100 val samples can serve: 100 damaged"):
        module(Shards(good, val=bad)).setup("fit")


def test_one_usable_sample_is_enough_and_a_recipe_without_any_is_warned_of(write_shard, encoded):
    members = {f"{i:03d}.txt": b"alone" for i in range(50)}
    members |= {"x.png": encoded(), "x.txt": b"t"}
    source = Shards(write_shard("a.tar", members))
    module(source).setup("fit")
    with pytest.warns(UserWarning, match="none of the first 51 train samples is one for Questions"):
        module(source, Mixture([Captions(), Questions()], [1.0, 1.0])).setup("fit")


# The way


@pytest.mark.parametrize("num_workers", [0, 2])
def test_skipped_samples_are_counted_and_named_once(write_shard, encoded, num_workers):
    shards = []
    for name in ("a", "b"):
        members = {f"{name}bad.png": b"not an image", f"{name}bad.txt": b"t"}
        for i in range(4):
            members |= {f"{name}{i}.png": encoded(), f"{name}{i}.txt": b"t"}
        shards.append(write_shard(f"{name}.tar", members))
    datamodule = module(Shards(shards), num_workers=num_workers, steps_per_epoch=20)
    batches = list(datamodule.train_dataloader())
    assert all(len(batch) == 2 for batch in batches)
    assert all("bad" not in d.key for batch in batches for d in batch.documents)
    assert {sample.key for sample in datamodule.skipped_samples} == {"abad", "bbad"}
    with pytest.warns(UserWarning, match=r"2 samples were skipped \(2 damaged\): .bad in .*\.tar"):
        datamodule.teardown("fit")


def test_a_fault_in_evaluation_leaves_the_others(write_shard, encoded):
    members = {}
    for i in range(5):
        members |= {f"k{i}.png": b"broken" if i == 2 else encoded()}
        asked = b'{"question": "is it?", "answer": "yes"}'
        members |= {"k3.json": asked} if i == 3 else {f"k{i}.txt": b"t"}
    shard = write_shard("a.tar", members)
    datamodule = module(Shards(shard, test=shard))
    documents = [d for batch in datamodule.test_dataloader() for d in batch.documents]
    assert [d.key for d in documents] == ["k0", "k1", "k3", "k4"]
    assert [s.content for s in documents[2].segments[1:]] == ["is it?", "yes"]
    assert [sample.key for sample in datamodule.skipped_samples] == ["k2"]


def test_a_share_above_max_skipped_stops_the_run_with_its_reasons():
    log = SkipLog(0.05, window=100)
    for start in range(0, 500, 100):  # one in twenty, for ever
        log.record(skipped(5, start=start), 100)
    with pytest.raises(UserError) as error:
        log.record(skipped(4, "too small", start=2000), 4)
    assert str(error.value) == (
        "9 of the last 104 samples were skipped, more than max_skipped=0.05 of 104: 5 no caption, "
        "4 too small; such as k404 in a.tar (no caption); k2003 in a.tar (too small)"
    )
    assert log.counts == Counter({"no caption": 25, "too small": 4})


def test_samples_of_long_ago_do_not_count_and_none_is_a_share_of_nothing():
    log = SkipLog(0.05, window=100)
    log.record(skipped(5), 5)
    log.record([], 200)
    log.record(skipped(5, start=5), 5)
    with pytest.raises(UserError, match="1 of the last 1 samples"):
        SkipLog(0.0).record(skipped(1), 1)
    with pytest.raises(UserError, match="100 of the last 100 samples"):
        SkipLog(1.0, window=100).record(skipped(100), 100)


def test_a_stream_without_usable_samples_ends(write_shard):
    shard = write_shard("a.tar", {f"{i}.txt": b"t" for i in range(500)})
    with pytest.raises(UserError, match="1000 no image"):
        list(module(Shards(shard), max_skipped=1.0).train_dataloader())


def test_max_skipped_is_a_share():
    with pytest.raises(UserError, match=r"max_skipped must be a probability in \[0, 1\], not 2"):
        module(EasyVQA(), max_skipped=2.0)


def test_names_of_anybody_are_one_short_line_on_the_terminal():
    hostile = Skipped(
        shard="a.tar", key="x\n\x1b[31mpretzel: all is well" + "y" * 10**4, reason="damaged"
    )
    assert str(hostile).startswith("x [31mpretzel: all is well")
    assert len(str(hostile)) == 500


class Board:
    """A logger that keeps what it is given."""

    def __init__(self):
        self.values = {}

    def log_metrics(self, metrics, step):
        self.values |= metrics


def trainer_of(folder, rank):
    return Mock(
        spec=Trainer,
        log_dir=str(folder),
        fast_dev_run=False,
        is_global_zero=rank == 0,
        global_rank=rank,
        global_step=0,
        log_every_n_steps=1,
        world_size=2,
        loggers=[Board()] if rank == 0 else [],
    )


def test_processes_write_one_file_and_the_first_one_counts_them_all(tmp_path):
    logs, trainers = [SkipLog(1.0), SkipLog(1.0)], [trainer_of(tmp_path, r) for r in (0, 1)]
    for log, trainer in zip(logs, trainers, strict=True):
        log.follow(trainer)
    logs[1].record(skipped(3), 10)
    logs[0].record([*skipped(4, start=2), *skipped(1, "too small")], 10)
    with pytest.warns(UserWarning, match=r"7 samples were skipped \(6 no caption, 1 too small\)"):
        logs[0].close()
    assert trainers[0].loggers[0].values == {
        "data/skipped_no_caption": 6.0,
        "data/skipped_too_small": 1.0,
    }
    logs[1].close()  # process 0 has warned
    path = tmp_path / "skipped.jsonl"
    assert len(path.read_text().splitlines()) == 7
    with path.open("ab") as file:
        file.write(b'{"shard": "cut')  # by a crash
    logs[1].follow(trainer_of(tmp_path / "other", 1))
    logs[1].record(skipped(1), 1)
    assert (tmp_path / "other" / "skipped.jsonl").read_text().count("k0") == 1
    logs[1].follow(trainers[0])  # as a resumed run does
    logs[1].record(skipped(1, start=9), 1)
    assert logs[1].counts == Counter({"no caption": 7, "too small": 1})
    assert json.loads(path.read_text().splitlines()[-1])["key"] == "k9"


def test_a_split_that_turns_out_unreadable_is_refused(write_shard, encoded):
    good = write_shard("a.tar", {"x.png": encoded(), "x.txt": b"t", "y.txt": b"alone"})
    bad = write_shard("b.tar", {"x.png": b"broken", "x.txt": b"t"})
    datamodule = module(Shards(good, val=bad), max_skipped=1.0)
    list(datamodule.train_dataloader())
    assert datamodule.skipped_samples
    for _ in range(2):  # also where the sample is known already
        with pytest.raises(UserError, match=r"no sample of the val split can serve: 1 damaged$"):
            list(datamodule.val_dataloader())


def test_a_process_without_a_sample_is_refused(shard_pattern, write_shard, encoded):
    members = {"x.png": encoded(), "x.txt": b"t", "y.png": b"broken", "y.txt": b"t"}
    source = Shards(shard_pattern, val=write_shard("b.tar", members))

    def loader(limit):
        place = {"split": "val", "batch_size": 2, "limit": limit, "rank": 1, "world_size": 2}
        stream = EvalStream(
            source=source, decoder=source.decoder(PictureDecoder(image_size=16)), **place
        )
        return EvalLoader(streams=(stream, stream), num_workers=0, log=SkipLog(1.0))

    with pytest.raises(UserError, match=r"a sample for each of the 2 processes, not 1 and 1$"):
        loader(1)
    with pytest.raises(UserError, match=r"val split in process 1 of 2 can serve: 2 damaged$"):
        list(loader(None))
