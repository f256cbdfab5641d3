"""Interleaved documents: a user's own, and those made of captioned images."""

import json
from itertools import pairwise, repeat

import numpy as np
import pytest
import torch

from datamodules import (
    AsWritten,
    CaptionQuestions,
    Captions,
    Conversations,
    InterleavedSample,
    Mixture,
    Questions,
    Sample,
    Shards,
    WebDatasetDataModule,
)
from datamodules.decoding.picture import PictureDecoder
from datamodules.sample import Unusable
from pretzel.errors import UserError
from pretzel.rng import stream
from pretzel.sequence.document import Dropped, Image, Text

RED, BLUE = (255, 0, 0), (0, 0, 255)
STORY = [
    {"text": "a red square"},
    {"image": "0.png"},
    {"text": "what color is it?"},
    {"text": "red", "role": "target"},
    {"text": "now make it blue"},
    {"image": "Second.jpg"},
]
WRITTEN = (
    Text(content="a red square"),
    Image(),
    Text(content="what color is it?"),
    Text(content="red", role="target"),
    Text(content="now make it blue"),
    Image(),
)


def pixels(value):
    return np.full((4, 4, 3), value, dtype=np.uint8)


SAMPLES = [
    Sample(
        key=f"k{i}",
        pixels=pixels(i),
        caption=f"caption {i}",
        questions=tuple((f"q{i}{j}", f"a{i}{j}") for j in range(i)),
    )
    for i in range(4)
]
DOCUMENT = InterleavedSample(key="story", segments=WRITTEN, images=(pixels(7), pixels(8)))


def module(source, recipe, **changes):
    arguments = {"image_size": 16, "batch_size": 2, "steps_per_epoch": 3, "shuffle_buffer": 4}
    return WebDatasetDataModule(source, recipe, **(arguments | changes))


def story(encoded, key="x", segments=STORY):
    return {
        f"{key}.0.png": encoded(RED),
        f"{key}.Second.jpg": encoded(BLUE, suffix="jpg"),
        f"{key}.json": json.dumps({"segments": segments}).encode(),
    }


@pytest.fixture
def stories(write_shard, encoded, tmp_path):
    """Four shards of four interleaved documents."""
    for shard in range(4):
        members = {}
        for number in range(4):
            members |= story(encoded, f"{shard}{number}")
        write_shard(f"{shard:05d}.tar", members)
    return str(tmp_path / "{00000..00003}.tar")


# Shards of documents


def decoded(source):
    return source.decoded_by(source.decoder(PictureDecoder(image_size=16)), "train")


def test_a_document_is_read_as_it_is_written(write_shard, encoded):
    source = Shards(write_shard("a.tar", story(encoded)))
    (sample,) = decoded(source)
    assert (sample.key, sample.segments) == ("x", WRITTEN)
    first, second = (image.reshape(-1, 3).mean(0) for image in sample.images)
    assert np.abs(first - RED).max() < 2
    assert np.abs(second - BLUE).max() < 12


def test_an_image_is_not_shown_without_end(write_shard, encoded):
    shard = write_shard("a.tar", story(encoded, "a", [{"image": "0.png"}] * 1001))
    source = Shards(shard)
    (raw,) = source.read(shard)
    assert source.decoder(PictureDecoder(image_size=16))(raw).reason == "too large"


def test_text_alone_and_one_image_shown_twice(write_shard, encoded):
    members = story(encoded, "a", [{"text": "hello"}, {"text": "hi", "role": "target"}])
    members |= story(encoded, "b", [{"image": "0.png"}, {"text": "again"}, {"image": "0.png"}])
    text, twice = decoded(Shards(write_shard("a.tar", members)))
    assert (text.images, len(twice.images)) == ((), 2)
    assert text.segments[1] == Text(content="hi", role="target")


def test_batches_hold_images_in_order_of_documents(stories):
    loader = module(Shards(stories), AsWritten(drop=0.0)).train_dataloader()
    for batch in loader:
        assert [document.segments for document in batch.documents] == [WRITTEN] * 2
        assert batch.images.shape == (4, 3, 16, 16)
        colors = batch.images.mean(dim=(2, 3)).argmax(dim=1)
        assert colors.tolist() == [0, 2, 0, 2]


@pytest.mark.parametrize(
    ("segments", "parts"),
    [
        ([{"image": "3.png"}], ("segment 0", "names the image '3.png'", "no image 'x.3.png'")),
        ([{"text": "a"}, {"image": "json"}], ("segment 1", "no image 'x.json'")),
        ([{"text": "a", "role": "dropped"}], ("segment 0", "'context' or 'target'")),
        ([{"text": 3}], ("segment 0", "{'text': 3}")),
        ([{"text": "a", "image": "0.png"}], ("segment 0", "must be")),
        (["a"], ("segment 0", "'a'")),
        ([], ("must be a list of texts and images, not []",)),
        ({"text": "a"}, ("must be a list",)),
        ([{"text": " "}], ("neither text nor image",)),
    ],
)
def test_mistakes_name_shard_and_key(write_shard, encoded, segments, parts):
    shard = write_shard("a.tar", story(encoded, segments=segments))
    with pytest.raises(UserError) as error:
        module(Shards(shard), AsWritten()).setup("fit")
    message = str(error.value)
    assert "\n" not in message
    for part in (f"x in {shard}", *parts):
        assert part in message


def test_a_broken_or_small_image_inside_a_document_is_named(write_shard, encoded):
    members = story(encoded, "good") | story(encoded, "bad") | {"bad.0.png": b"broken"}
    datamodule = module(Shards(write_shard("a.tar", members)), AsWritten())
    keys = {document.key for batch in datamodule.train_dataloader() for document in batch.documents}
    assert keys == {"good"}
    assert [sample.key for sample in datamodule.skipped_samples] == ["bad"]
    with pytest.warns(UserWarning, match="bad in"):
        datamodule.teardown("fit")
    members = story(encoded) | {"x.0.png": encoded(size=(8, 8))}
    with pytest.raises(UserError, match=r"x in .* \(too small: x.0.png: 8x8 pixels"):
        module(Shards(write_shard("b.tar", members)), AsWritten()).setup("fit")


def test_evaluation_keeps_documents_and_metrics_ask_for_captions(stories):
    datamodule = module(Shards(stories, test=stories), AsWritten())
    batches = list(datamodule.test_dataloader())
    assert sum(len(batch) for batch in batches) == 16
    assert {document.segments for batch in batches for document in batch.documents} == {WRITTEN}
    with pytest.raises(UserError, match="test shards hold interleaved documents alone"):
        list(datamodule.evaluation_samples("test"))


def test_documents_and_captions_in_one_source(write_shard, encoded):
    captioned = {}
    for i in range(4):
        captioned |= {f"c{i}.png": encoded(), f"c{i}.txt": b"t"}
    shards = [write_shard("a.tar", story(encoded)), write_shard("b.tar", captioned)]
    source = Shards(shards, val=shards)
    recipe = Mixture([Captions(0.0), AsWritten(0.0), Conversations(2, drop=0.0)], [1.0, 1.0, 1.0])
    datamodule = module(source, recipe, steps_per_epoch=20)
    kinds = set()
    for batch in datamodule.train_dataloader():
        assert len(batch.images) == sum(document.num_images for document in batch.documents)
        kinds |= {(document.key == "x", len(document.segments)) for document in batch.documents}
    assert kinds == {(True, 6), (False, 2), (False, 4)}
    assert [sample.key for sample in datamodule.evaluation_samples("val")] == [
        f"c{i}" for i in range(4)
    ]


def test_all_else_that_json_says_is_ground_truth_in_evaluation_alone(write_shard, encoded):
    truth = {"objects": [{"kind": "cat", "count": 2}], "held_out": True, "sha": None}
    members = story(encoded)
    members["x.json"] = json.dumps({"segments": STORY} | truth).encode()
    texts = {"title": "t", "question": "is it?", "answer": "no", "question_type": "exist"}
    members |= {"y.png": encoded(), "y.json": json.dumps(texts | truth).encode()}
    members |= {"z.png": encoded(), "z.txt": b"z"}
    shard = write_shard("a.tar", members)
    source = Shards(shard, test=shard, caption_field="title")
    datamodule = module(source, Mixture([Captions(), AsWritten()], [1.0, 1.0]))
    (batch, rest) = datamodule.test_dataloader()
    documents = (*batch.documents, *rest.documents)
    assert {one.key: one.truth for one in documents} == {"x": truth, "y": truth, "z": {}}
    assert {one.key: one.truth for one in datamodule.evaluation_samples()} == {"y": truth, "z": {}}
    assert [one.truth for one in datamodule.evaluation_documents("test", limit=5)] == [truth]
    trained = [one for batch in datamodule.train_dataloader() for one in batch.documents]
    assert [one.truth for one in trained] == [{}] * 6


# Recipes


def conversation(recipe, number=0):
    return recipe.draw(SAMPLES[1], iter(SAMPLES[2:]), stream(0, "test", number))


def test_a_conversation_asks_about_each_image_and_requests_the_next():
    recipe, counts = Conversations(num_turns=3, max_questions=2, drop=0.0), []
    for number in range(300):
        (made,) = conversation(recipe, number)
        assert made.document.key == "k1+k2+k3"
        for actual, expected in zip(made.pixels, (pixels(i) for i in (1, 2, 3)), strict=True):
            assert (actual == expected).all()
        segments = iter(made.document.segments)
        asked = {}
        for segment in segments:
            text = segment.content
            if text.startswith("caption"):
                turn = text[-1]
                asked[turn] = []
                assert next(segments) == Image()
            else:
                assert text.startswith(f"q{turn}")
                assert next(segments) == Text(content=f"a{text[1:]}", role="target")
                asked[turn].append(text)
        assert all(len(set(actual)) == len(actual) for actual in asked.values())
        counts.append([len(actual) for actual in asked.values()])
    # of the first image there is one question only
    first, *others = zip(*counts, strict=True)
    assert [first.count(n) for n in (0, 1, 2)] == pytest.approx([100, 200, 0], abs=35)
    for turn in others:
        assert [turn.count(n) for n in (0, 1, 2)] == pytest.approx([100, 100, 100], abs=35)


def test_an_image_without_questions_has_none():
    (made,) = Conversations(num_turns=1, drop=0.0).draw(SAMPLES[0], repeat(DOCUMENT), stream(0))
    assert made.document.segments == (Text(content="caption 0"), Image())


def test_turns_that_are_not_shown_keep_caption_and_questions():
    num_shown, num_asked = 0, 0
    for number in range(200):
        (made,) = conversation(Conversations(num_turns=3, drop=0.0, shown=0.3), number)
        (whole,) = conversation(Conversations(num_turns=3, drop=0.0, shown=1.0), number)
        segments = made.document.segments
        text = [one for one in segments if isinstance(one, Text)]
        assert text == [one for one in whole.document.segments if isinstance(one, Text)]
        # an image stands behind its own caption, and shows what that says
        shown = [before.content for before, one in pairwise(segments) if isinstance(one, Image)]
        assert [f"caption {one[0, 0, 0]}" for one in made.pixels] == shown
        num_shown += len(shown)
        num_asked += len(text) - 3
    assert num_shown == pytest.approx(180, abs=40)
    assert num_asked


def test_a_document_without_images_is_never_dropped():
    (made,) = conversation(Conversations(num_turns=2, drop=1.0, shown=0.0))
    assert made.pixels == ()
    assert all(isinstance(segment, Text) for segment in made.document.segments)


def test_documents_met_on_the_way_stay():
    following = iter([DOCUMENT, SAMPLES[2]])
    made, other = Conversations(2, drop=0.0).draw(SAMPLES[1], following, stream(0))
    assert made.document.key == "k1+k2"
    assert (other.document.key, other.document.segments) == ("story", WRITTEN)


def test_an_image_without_a_caption_asks_no_model_to_paint_it():
    asked = Sample(key="asked", pixels=pixels(9), caption="", questions=(("q", "a"),))
    recipe = Conversations(2, max_questions=0, drop=0.0)
    assert not recipe.accepts(asked)
    made, other = recipe.draw(SAMPLES[1], iter([asked, SAMPLES[2]]), stream(0))
    assert made.document.key == "k1+k2"
    assert other.document.segments == (Image(), Text(content="q"), Text(content="a", role="target"))
    assert (other.pixels[0] == 9).all()


@pytest.mark.parametrize("recipe", [Conversations(2, drop=0.5), AsWritten(drop=0.5)])
def test_the_past_of_first_and_later_images_is_dropped(recipe):
    starts = []
    for number in range(400):
        sample = DOCUMENT if isinstance(recipe, AsWritten) else SAMPLES[1]
        (made,) = recipe.draw(sample, iter(SAMPLES[2:]), stream(0, "test", number))
        head, *rest = made.document.segments
        assert not any(isinstance(segment, Dropped) for segment in rest)
        assert len(made.pixels) == made.document.num_images
        starts.append(len(head.segments) if isinstance(head, Dropped) else 0)
    # dropped in half of them; from the first image on, or from the second behind a question or not
    assert starts.count(0) == pytest.approx(200, abs=40)
    assert set(starts) == ({0, 1, 5} if isinstance(recipe, AsWritten) else {0, 1, 3, 5})
    assert starts.count(1) == pytest.approx(100, abs=35)


def test_a_higher_drop_rate_drops_the_same_and_more():
    def dropped(rate):
        made = [conversation(Conversations(2, drop=rate), i)[0].document for i in range(100)]
        return {(i, d) for i, d in enumerate(made) if isinstance(d.segments[0], Dropped)}

    assert dropped(0.2) < dropped(0.6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Conversations(num_turns=0), "num_turns must be at least 1, not 0"),
        (lambda: Conversations(max_questions=-1), "max_questions must be at least 0, not -1"),
        (lambda: Conversations(drop=2.0), "drop must be a probability in [0, 1], not 2.0"),
        (lambda: Conversations(shown=-0.5), "shown must be a probability in [0, 1], not -0.5"),
        (lambda: AsWritten(drop=-1.0), "drop must be a probability in [0, 1], not -1.0"),
    ],
)
def test_wrong_numbers_are_refused(make, message):
    with pytest.raises(UserError) as error:
        make()
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("recipe", "sample", "reason", "message"),
    [
        (AsWritten(), SAMPLES[0], "other kind", "no segments"),
        (Captions(), DOCUMENT, "other kind", "datamodules.AsWritten"),
        (Conversations(), DOCUMENT, "other kind", "an interleaved document"),
        (Mixture([Captions()], [1.0]), DOCUMENT, "other kind", "recipe Captions"),
        (Mixture([AsWritten(), Questions()], [1.0, 1.0]), SAMPLES[0], "no recipe", "no segments, "),
    ],
)
def test_what_does_not_fit_is_refused(recipe, sample, reason, message):
    for refuse in (recipe.check, lambda one: recipe.draw(one, repeat(one), stream(0))):
        with pytest.raises(Unusable) as error:
            refuse(sample)
        assert (error.value.reason, recipe.accepts(sample)) == (reason, False)
        assert message in str(error.value)


# The stream


def conversations(pattern, num_workers=0, **changes):
    recipe = Mixture([Conversations(2, drop=0.3), Captions(0.3), Questions()], [2.0, 1.0, 1.0])
    return module(Shards(pattern), recipe, num_workers=num_workers, steps_per_epoch=6, **changes)


def batches(loader):
    return [(batch.documents, batch.images.sum().item()) for batch in loader]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_equal_seeds_give_equal_batches_and_resuming_continues(shard_pattern, num_workers):
    whole = batches(conversations(shard_pattern, num_workers).train_dataloader())
    assert len(whole) == 6
    assert any(d.num_images == 2 for documents, _ in whole for d in documents)
    torch.manual_seed(1)
    loader = conversations(shard_pattern, num_workers).train_dataloader()
    loader.load_state_dict({"consumed": 4})
    assert batches(loader) == whole[4:]
    other = batches(conversations(shard_pattern, num_workers, seed=1).train_dataloader())
    assert other != whole


def test_every_image_is_that_of_its_sample(shard_pattern):
    recipe = Conversations(num_turns=3, max_questions=0, drop=0.4)
    source = Shards(shard_pattern)
    datamodule = module(source, recipe)
    known = {sample.key: sample for sample in source.samples("train", 16)}
    for batch in datamodule.train_dataloader():
        images = iter(batch.images)
        for document in batch.documents:
            keys = document.key.split("+")
            assert len(keys) == 3
            for key in keys[3 - document.num_images :]:
                assert torch.equal(next(images), known[key].image)
        assert next(images, None) is None


def test_a_batch_without_images_has_none(shard_pattern):
    (batch, *_) = module(Shards(shard_pattern), CaptionQuestions()).train_dataloader()
    assert batch.images.shape == (0, 3, 16, 16)
