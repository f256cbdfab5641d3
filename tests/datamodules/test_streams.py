"""Determinism, shuffling, the split over processes and workers, exact skipping."""

from collections import Counter

import pytest
import torch

from datamodules import Captions, EasyVQA, Shards, WebDatasetDataModule
from datamodules.decoding.picture import PictureDecoder
from datamodules.streams.eval_stream import EvalStream


def module(source, **changes):
    arguments = {"image_size": 16, "batch_size": 4, "steps_per_epoch": 6, "shuffle_buffer": 16}
    return WebDatasetDataModule(source, Captions(), **(arguments | changes))


def keys(loader):
    return [tuple(document.key for document in batch.documents) for batch in loader]


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


def test_images_belong_to_their_documents():
    datamodule = WebDatasetDataModule(
        EasyVQA(), Captions(), image_size=32, batch_size=8, steps_per_epoch=2
    )
    raws = {r.key: r for shard in EasyVQA().shards("train") for r in EasyVQA().read(shard)}
    decode = EasyVQA().decoder(PictureDecoder(image_size=32))
    for batch in datamodule.train_dataloader():
        for document, image in zip(batch.documents, batch.images, strict=True):
            sample = decode(raws[document.key])
            assert torch.equal(image, sample.image)
            assert document.segments[0].content == sample.caption


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


def test_workers_are_capped_at_the_lanes_with_a_message(shard_pattern):
    datamodule = module(Shards(shard_pattern), batch_size=2, num_workers=9)
    with pytest.warns(UserWarning, match="num_workers=9 is capped at 2: as many lanes make a"):
        loader = datamodule.train_dataloader()
    assert keys(loader) == keys(module(Shards(shard_pattern), batch_size=2).train_dataloader())


def test_workers_go_on_over_epochs(shard_pattern):
    loader = module(Shards(shard_pattern), num_workers=2, steps_per_epoch=2).train_dataloader()
    epochs = [batch for _ in range(3) for batch in keys(loader)]
    assert epochs == keys(module(Shards(shard_pattern)).train_dataloader())


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


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize(("limit", "count"), [(None, 60), (50, 50)])
def test_processes_share_the_evaluation_without_overlap(shard_pattern, world_size, limit, count):
    source = Shards(shard_pattern, test=shard_pattern)
    for workers in (1, 3):
        seen = []
        for rank in range(world_size):
            place = {"split": "test", "batch_size": 4, "limit": limit, "rank": rank}
            stream = EvalStream(
                source=source,
                decoder=source.decoder(PictureDecoder(image_size=16)),
                world_size=world_size,
                **place,
            )
            for turn in range(workers):
                for delivery in stream.deliveries(turn, workers):
                    seen += [document.key for document in delivery.rows.documents]
        assert len(seen) == len(set(seen)) == count


def test_evaluation_samples_hold_image_caption_and_questions():
    (sample,) = module(EasyVQA(), image_size=32).evaluation_samples(limit=1)
    assert sample.key == "easy_vqa_test_0000"
    assert sample.image.shape == (3, 32, 32)
    assert -1 <= sample.image.min() < sample.image.max() <= 1
    assert sample.caption.startswith("a ")
    assert all(question.endswith("?") for question, _ in sample.questions)


def test_a_source_without_validation_has_no_validation_loader(shard_pattern):
    assert module(Shards(shard_pattern)).val_dataloader() == []
