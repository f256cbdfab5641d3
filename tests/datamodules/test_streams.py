"""Determinism, shuffling, the split over processes and workers, exact skipping."""

from collections import Counter

import pytest
import torch

from datamodules import Captions, DataSource, EasyVQA, Shards, WebDatasetDataModule
from datamodules.streams.eval_stream import EvalStream
from datamodules.streams.train_stream import TrainStream


class Named(DataSource):
    """Shards of which there is nothing but the names."""

    def __init__(self, *names):
        self.names = names

    def shards(self, split):
        return self.names

    def num_samples(self, split):
        return None


def train_stream(source, **changes):
    arguments = {"seed": 0, "batch_size": 4, "steps": 6, "shuffle_buffer": 16}
    arguments |= {"rank": 0, "world_size": 1, "num_workers": 0}
    return TrainStream(
        source=source, decoder=source.decoder(16), recipe=Captions(), **(arguments | changes)
    )


def module(source, **changes):
    arguments = {"image_size": 16, "batch_size": 4, "steps_per_epoch": 6, "shuffle_buffer": 16}
    return WebDatasetDataModule(source, Captions(), **(arguments | changes))


def keys(loader):
    return [tuple(document.key for document in batch.documents) for batch in loader]


def stream_keys(source, **changes):
    return keys(delivery.batch for delivery in train_stream(source, **changes))


def test_equal_seeds_give_equal_batches(shard_pattern):
    first = list(module(Shards(shard_pattern)).train_dataloader())
    second = list(module(Shards(shard_pattern)).train_dataloader())
    for a, b in zip(first, second, strict=True):
        assert a.documents == b.documents
        assert torch.equal(a.images, b.images)


def test_order_does_not_depend_on_the_global_streams(shard_pattern):
    torch.manual_seed(1)
    first = keys(module(Shards(shard_pattern)).train_dataloader())
    torch.manual_seed(2)
    assert keys(module(Shards(shard_pattern)).train_dataloader()) == first


def test_another_seed_or_epoch_gives_other_batches(shard_pattern):
    loader = module(Shards(shard_pattern)).train_dataloader()
    epochs = [keys(loader) for _ in range(3)]
    other = keys(module(Shards(shard_pattern), seed=1).train_dataloader())
    orders = [*epochs, other]
    assert len({tuple(order) for order in orders}) == 4


def test_every_epoch_has_its_number_of_full_batches(shard_pattern):
    loader = module(Shards(shard_pattern), steps_per_epoch=30).train_dataloader()
    assert len(loader) == 30
    for _ in range(2):
        assert [len(batch) for batch in loader] == [4] * 30


def test_training_sees_every_sample(shard_pattern):
    source = Shards(shard_pattern)
    loader = module(source, batch_size=20, steps_per_epoch=40).train_dataloader()
    counts = Counter(key for batch in keys(loader) for key in batch)
    assert len(counts) == 60


def test_buffer_mixes_shards(shard_pattern):
    (first, *_) = stream_keys(Shards(shard_pattern), shuffle_buffer=40, batch_size=10)
    assert len({key[:2] for key in first}) > 1


def test_images_belong_to_their_documents():
    datamodule = WebDatasetDataModule(
        EasyVQA(), Captions(), image_size=32, batch_size=8, steps_per_epoch=2
    )
    raws = {r.key: r for shard in EasyVQA().shards("train") for r in EasyVQA().read(shard)}
    decode = EasyVQA().decoder(32)
    for batch in datamodule.train_dataloader():
        for document, image in zip(batch.documents, batch.images, strict=True):
            sample = decode(raws[document.key])
            assert torch.equal(image, sample.image)
            assert document.segments[0].content == sample.caption


@pytest.mark.parametrize("num_workers", [1, 2, 3])
@pytest.mark.parametrize("world_size", [1, 2])
def test_slots_share_no_shard_and_leave_none_out(num_workers, world_size):
    source = Named(*(f"s{i}" for i in range(6)))
    place = {"world_size": world_size, "num_workers": num_workers}
    for epoch in range(3):
        seen = []
        for rank in range(world_size):
            stream = train_stream(source, rank=rank, epoch=epoch, **place)
            for slot in range(num_workers):
                seen += stream.slot_shards(slot)
        assert sorted(seen) == sorted(source.names)


def test_unequal_shares_even_out_over_epochs():
    source = Named(*(f"s{i}" for i in range(5)))
    weight = Counter()
    epochs = 400
    for epoch in range(epochs):
        for rank in range(2):
            share = train_stream(source, rank=rank, world_size=2, epoch=epoch).slot_shards(0)
            for shard in share:
                weight[shard] += 1 / len(share)
    # Each epoch gives a shard 1/3 with probability 3/5, else 1/2.
    expected = epochs * 2 / 5
    deviation = (epochs * (3 / 5) * (2 / 5)) ** 0.5 * (1 / 2 - 1 / 3)
    assert all(abs(weight[shard] - expected) < 4 * deviation for shard in source.names)


def test_more_processes_than_shards_still_all_get_one():
    for rank in range(5):
        stream = train_stream(Named("a", "b"), rank=rank, world_size=5)
        assert len(stream.slot_shards(0)) == 1


def test_processes_see_different_data(shard_pattern):
    source = Shards(shard_pattern)
    ranks = [
        {key for batch in stream_keys(source, rank=r, world_size=2) for key in batch}
        for r in range(2)
    ]
    assert ranks[0]
    assert not ranks[0] & ranks[1]


def test_two_workers_deliver_what_their_slots_hold_in_turn(shard_pattern):
    source = Shards(shard_pattern)
    loader = module(source, num_workers=2).train_dataloader()
    actual = keys(loader)
    assert len(actual) == 6
    assert actual == keys(module(source, num_workers=2).train_dataloader())
    for slot in range(2):
        own = set(train_stream(source, num_workers=2).slot_shards(slot))
        numbers = {f"{int(shard[-9:-4]):02d}" for shard in own}
        assert {key[:2] for batch in actual[slot::2] for key in batch} <= numbers


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("first", [1, 3, 4])
def test_skipping_batches_leaves_the_rest_as_it_was(shard_pattern, num_workers, first):
    source = Shards(shard_pattern)
    whole = keys(module(source, num_workers=num_workers).train_dataloader())
    loader = module(source, num_workers=num_workers).train_dataloader()
    loader.load_state_dict({"consumed": first})
    assert keys(loader) == whole[first:]


def test_loader_state_counts_over_epochs(shard_pattern):
    source = Shards(shard_pattern)
    loader = module(source).train_dataloader()
    epochs = [keys(loader) for _ in range(2)]
    resumed = module(source).train_dataloader()
    iterator = iter(resumed)
    for _ in range(2):
        next(iterator)
    state = resumed.state_dict()
    assert state == {"consumed": 2}
    other = module(source).train_dataloader()
    other.load_state_dict(state)
    assert keys(other) == epochs[0][2:]
    assert keys(other) == epochs[1]


def test_a_new_iteration_after_a_break_is_a_new_epoch(shard_pattern):
    source = Shards(shard_pattern)
    loader = module(source).train_dataloader()
    next(iter(loader))
    reference = module(source).train_dataloader()
    keys(reference)
    assert keys(loader) == keys(reference)


def test_workers_are_capped_at_the_shards_with_a_message(write_shard, encoded):
    shard = write_shard("a.tar", {"x.png": encoded(), "x.txt": b"t"})
    datamodule = module(Shards([shard, shard]), num_workers=9)
    with pytest.warns(UserWarning, match="num_workers=9 is capped at 2: there are 2 training"):
        loader = datamodule.train_dataloader()
    assert len(keys(loader)) == 6


@pytest.mark.parametrize("num_workers", [0, 2])
def test_evaluation_sees_each_sample_once_in_order(shard_pattern, num_workers):
    datamodule = module(Shards(shard_pattern, val=shard_pattern), num_workers=num_workers)
    expected = [f"{shard:02d}_{number:03d}" for shard in range(6) for number in range(10)]
    for _ in range(2):
        actual = keys(datamodule.val_dataloader())
        assert [key for batch in actual for key in batch] == expected
        assert [len(batch) for batch in actual] == [4] * 15


def test_number_of_validation_samples_is_limited(shard_pattern):
    datamodule = module(Shards(shard_pattern, val=shard_pattern), num_val_samples=6)
    assert [len(batch) for batch in keys(datamodule.val_dataloader())] == [4, 2]


def test_length_of_embedded_evaluation_is_known_and_right():
    datamodule = module(EasyVQA(), eval_batch_size=64, num_val_samples=130)
    assert len(datamodule.val_dataloader()) == len(keys(datamodule.val_dataloader())) == 3
    assert len(datamodule.test_dataloader()) == 16


def test_evaluation_drops_no_caption(shard_pattern):
    datamodule = WebDatasetDataModule(
        Shards(shard_pattern, test=shard_pattern), Captions(drop=1.0), 16, 4, 6
    )
    roles = {d.segments[0].role for b in datamodule.test_dataloader() for d in b.documents}
    assert roles == {"context"}


def test_processes_share_the_evaluation_without_overlap(shard_pattern):
    source = Shards(shard_pattern, test=shard_pattern)
    seen = []
    for rank in range(4):
        place = {"split": "test", "batch_size": 4, "limit": 50, "rank": rank, "world_size": 4}
        for delivery in EvalStream(source=source, decoder=source.decoder(16), **place):
            seen += [document.key for document in delivery.batch.documents]
    assert len(seen) == len(set(seen)) == 50


def test_evaluation_samples_hold_image_caption_and_questions():
    (sample,) = module(EasyVQA(), image_size=32).evaluation_samples(limit=1)
    assert sample.key == "easy_vqa_test_0000"
    assert sample.image.shape == (3, 32, 32)
    assert -1 <= sample.image.min() < sample.image.max() <= 1
    assert sample.caption.startswith("a ")
    assert all(question.endswith("?") for question, _ in sample.questions)


def test_a_source_without_validation_has_no_validation_loader(shard_pattern):
    assert module(Shards(shard_pattern)).val_dataloader() == []
