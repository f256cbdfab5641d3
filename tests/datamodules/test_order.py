"""One order of the training data for all numbers of processes and workers, and resuming in it."""

import json
from collections import Counter
from itertools import islice

import pytest
import torch

from datamodules import (
    AsWritten,
    Captions,
    Conversations,
    DataSource,
    Mixture,
    Recipe,
    WebDatasetDataModule,
)
from datamodules.decoding.picture import PictureDecoder
from datamodules.reading.tar_shard import RawSample
from datamodules.sample import Skipped, Unusable
from datamodules.sources.source import Part
from datamodules.streams.loader import whole_batches
from datamodules.streams.order import Order
from datamodules.streams.progress import Progress, merged, restored
from datamodules.streams.train_stream import TrainStream
from pretzel.media import Pictures

BUFFER = 24


class Memory(DataSource):
    """Shards in memory, a few samples of which are broken or interleaved documents."""

    def __init__(self, picture, num_shards, size=13):
        self.picture = picture
        self.size = size
        self.names = tuple(f"{number:02d}" for number in range(num_shards))
        self.num_read = 0
        self.resident = True
        self.kept_decoder = self.decoder(PictureDecoder(image_size=4))

    def shards(self, split):
        return self.names if split == "train" else ()

    def num_samples(self, split):
        return len(self.shards(split)) * self.size

    def read(self, shard, first=0, step=1):
        for number in range(first, self.size + int(shard) % 3, step):
            self.num_read += 1
            key, members = f"{shard}_{number:02d}", {"png": self.picture, "txt": b"words"}
            if number % 7 == 3:
                members["png"] = b"broken"
            elif number % 5 == 4:
                segments = [{"text": "words"}, {"image": "0.png"}]
                json_file = json.dumps({"segments": segments}).encode()
                members = {"0.png": self.picture, "json": json_file}
            yield RawSample(shard=shard, key=key, members=members)


class Picky(Recipe):
    """Refuses a part of the samples, some of them after having taken a second one."""

    def check(self, sample):
        if sample.key.endswith("5"):
            raise Unusable("no caption", "ends in five")

    def draw(self, sample, following, generator):
        chance = torch.rand((), generator=generator).item()
        if chance < 0.1:
            raise Unusable("damaged", "not today")
        documents = Conversations(num_turns=2) if chance < 0.7 else Captions(0.5)
        pair = sample if documents.accepts(sample) else next(s for s in following if s)
        if not documents.accepts(pair):
            raise Unusable("damaged", "two documents")
        return documents.draw(pair, following, generator)


ORDINARY = Mixture([Captions(0.5), AsWritten(0.5)], [1.0, 1.0])
RECIPES = {
    "one sample": ORDINARY,
    "several": Mixture([Conversations(num_turns=3), AsWritten(0.5)], [2.0, 1.0]),
    "picky": Picky(),
}


@pytest.fixture
def make_source(encoded):
    """Make shards in memory: ``make_source(num_shards, size)``."""
    picture = encoded(size=(4, 4))
    return lambda *sizes: Memory(picture, *sizes)


def run(parts, world_size, num_workers, *, batch_size=8, state=None, count=4, first=None):
    """Return ``count`` batches of all processes and the state behind the ``first`` of them."""
    progress = Progress() if state is None else restored(state)
    begin, lanes = progress.before(progress.last)
    order = Order(seed=0, batch_size=batch_size, shuffle_buffer=BUFFER)
    batches, states, skipped = [()] * count, [], []
    for rank in range(world_size):
        stream = TrainStream(
            parts=parts,
            decoders=tuple(part.source.kept_decoder for part in parts),
            order=order,
            medium=Pictures(4),
            rank=rank,
            world_size=world_size,
            num_workers=num_workers,
            first=begin,
            begin=begin,
            lanes=lanes,
        )
        workers = [stream.deliveries(turn, stream.num_parts) for turn in range(stream.num_parts)]
        deliveries = (delivery for turn in zip(*workers, strict=True) for delivery in turn)
        known = (d for d in deliveries if skipped.extend(d.skipped) or d.rows is not None)
        own = Progress()
        for step, (batch, places, counts) in enumerate(
            islice(whole_batches(known, len(workers)), count)
        ):
            assert len(batch) == batch_size // world_size
            assert len(batch.images) == sum(d.num_images for d in batch.documents)
            batches[step] += batch.documents
            if step + 1 == first:
                own.record(begin + first, places, counts)
        states.append(own.state(begin + (first or 0)))
    return batches, merged(states), skipped


def alone(source, recipe=ORDINARY):
    return source.parts(recipe)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("num_shards", [1, 3, 7, 100])
def test_processes_and_workers_change_nothing(make_source, num_shards, recipe):
    parts = alone(make_source(num_shards), RECIPES[recipe])
    expected, _, skipped = run(parts, 1, 0)
    assert len(expected) == len(set(expected)) == 4
    assert skipped
    # None reads as one worker does, and each is at most one for a document.
    for world_size, workers in ((1, (2, 3, 4)), (2, (0, 1, 3, 4)), (4, (0, 2))):
        for num_workers in workers:
            batches, _, also_skipped = run(parts, world_size, num_workers)
            assert batches == expected, (world_size, num_workers)
            assert sorted(s.key for s in also_skipped) == sorted(s.key for s in skipped)


@pytest.mark.parametrize("recipe", RECIPES)
def test_goes_on_with_the_next_document_in_other_numbers_of_both(make_source, recipe):
    parts = alone(make_source(3), RECIPES[recipe])
    expected, *_ = run(parts, 1, 0, count=12)
    for world_size, workers, others in ((1, 0, (4, 2)), (2, 3, (1, 1)), (4, 1, (2, 0))):
        _, state, _ = run(parts, world_size, workers, first=4)
        state = json.loads(json.dumps(state), object_hook=with_numbers)
        later, state, _ = run(parts, *others, state=state, count=3, first=3)
        assert later == expected[4:7]
        assert run(parts, world_size, workers, state=state, count=5)[0] == expected[7:]


def with_numbers(mapping):
    return {int(key) if key.isdigit() else key: value for key, value in mapping.items()}


def test_lanes_that_two_processes_share_are_told_once(make_source):
    parts = alone(make_source(5))
    expected, _, skipped = run(parts, 1, 0, batch_size=130, count=2)
    batches, _, also_skipped = run(parts, 10, 2, batch_size=130, count=2)
    assert batches == expected
    assert sorted(s.key for s in also_skipped) == sorted(s.key for s in skipped)


@pytest.mark.parametrize("num_shards", [3, 100])
def test_what_was_consumed_is_not_read_again(make_source, num_shards):
    source = make_source(num_shards)
    parts = alone(source)
    _, state, _ = run(parts, 1, 0, count=60, first=60)
    source.num_read = 0
    run(parts, 2, 2, state=state, count=1)
    assert source.num_read <= 2 * BUFFER  # the blocks that were begun, and the next ones


@pytest.mark.parametrize("num_shards", [1, 3, 7, 8, 9, 30])
@pytest.mark.parametrize("lanes", [1, 8])
def test_lanes_together_read_each_sample_once_in_a_pass(num_shards, lanes):
    order = Order(seed=0, batch_size=lanes, shuffle_buffer=16)
    orders = set()
    for number in range(3):
        seen = []
        for lane in range(lanes):
            turn = 0
            place = {"lane": lane, "number": number}
            while (share := order.share("a", num_shards, turn=turn, **place)) is not None:
                shard, first, step = share
                seen += [(shard, sample) for sample in range(first, 11, step)]
                turn += 1
        assert sorted(seen) == [(shard, i) for shard in range(num_shards) for i in range(11)]
        orders.add(tuple(seen))
    assert len(orders) > 1 or lanes == num_shards == 1


def test_blocks_grow_to_the_buffer():
    order = Order(seed=0, batch_size=8, shuffle_buffer=800)
    sizes = [[order.block_size(lane, number) for number in range(8)] for lane in range(8)]
    assert {tuple(blocks[:5]) for blocks in sizes} == {(4, 8, 16, 32, 64)}
    assert [blocks[5] for blocks in sizes] == [100, 88, 75, 63, 50, 38, 25, 13]
    assert {tuple(blocks[6:]) for blocks in sizes} == {(100, 100)}
    assert Order(seed=0, batch_size=8, shuffle_buffer=1).block_size(7, 0) == 1


def test_every_sample_is_trained_on_however_short_the_epochs(make_source):
    source = make_source(9)
    documents = [d.key for batch in run(alone(source), 1, 0, count=25)[0] for d in batch]
    usable = [raw.key for shard in source.names for raw in source.read(shard)]
    usable = [key for key in usable if int(key[3:]) % 7 != 3]
    counts = Counter(documents)
    assert set(counts) == set(usable)
    assert max(counts.values()) <= 3


def counts_of(parts, num_batches):
    """Return the documents of each part in batches of eight."""
    arguments = {"medium": Pictures(4), "rank": 0, "world_size": 1, "num_workers": 0}
    order = Order(seed=0, batch_size=8, shuffle_buffer=BUFFER)
    decoders = tuple(part.source.kept_decoder for part in parts)
    stream = TrainStream(parts=parts, decoders=decoders, order=order, **arguments)
    return sum((d.counts for d in islice(stream.deliveries(0, 1), num_batches)), Counter())


def test_parts_are_mixed_by_weight_and_counted(make_source):
    parts = tuple(
        Part(name=name, source=make_source(2), recipe=ORDINARY, weight=weight)
        for name, weight in (("a", 1.0), ("b", 3.0))
    )
    expected, state, _ = run(parts, 1, 0, first=2)
    assert run(parts, 2, 2)[0] == expected
    assert run(parts, 4, 1, state=state, count=2)[0] == expected[2:]
    counts = counts_of(parts, 50)
    assert sum(counts.values()) == 400
    assert abs(counts["a"] - 100) < 4 * (400 * 3 / 16) ** 0.5


class Three(Recipe):
    """Makes three documents of a sample."""

    def check(self, sample):
        pass

    def draw(self, sample, following, generator):
        return ORDINARY.draw(sample, following, generator) * 3


def test_the_share_of_a_part_is_one_of_documents_whatever_its_recipe_makes(make_source):
    recipes = {"three": Three(), "picky": Picky(), "one": ORDINARY}
    parts = tuple(
        Part(name=name, source=make_source(5), recipe=recipe, weight=1.0)
        for name, recipe in recipes.items()
    )
    expected, state, _ = run(parts, 1, 0, count=8, first=3)
    state = json.loads(json.dumps(state), object_hook=with_numbers)
    assert run(parts, 2, 2, state=state, count=5)[0] == expected[3:]
    counts = counts_of(parts, 60)
    assert all(abs(counts[name] - 160) < 3 * (480 * 2 / 9) ** 0.5 for name in recipes), counts


def test_samples_of_which_none_can_be_used_are_told(make_source):
    class Broken(Memory):
        def read(self, shard, first=0, step=1):
            for number in range(first, self.size, step):
                yield Skipped(shard=shard, key=str(number), reason="damaged")

    stream_of = alone(Broken(b"", 2))
    order = Order(seed=0, batch_size=2, shuffle_buffer=BUFFER)
    place = {"medium": Pictures(4), "rank": 0, "world_size": 1, "num_workers": 0}
    decoders = (stream_of[0].source.kept_decoder,)
    stream = TrainStream(parts=stream_of, decoders=decoders, order=order, **place)
    for delivery in islice(stream.deliveries(0, 1), 3):
        assert delivery.rows is None
        assert len(delivery.skipped) == delivery.seen > 50


def test_examples_leave_out_what_a_recipe_refuses(make_source):
    data = WebDatasetDataModule(make_source(3), Picky(), 4, 2, 1)
    documents = data.example_documents(50)
    assert 25 < len(documents) < 60  # every tenth draw is refused, others make two


def test_shards_without_samples_are_an_error(make_source):
    parts = alone(make_source(3, -2))
    with pytest.raises(ValueError, match="training shards of Memory hold no sample"):
        run(parts, 1, 0)
