"""The forms of captions and questions that are read, and that nothing else is taken for one."""

import io
import json

import pytest

from datamodules import Shards, WebDatasetDataModule
from datamodules.decoding import decoder
from datamodules.decoding.captions import (
    FirstCaption,
    RandomCaption,
    WeightedCaption,
    read_captions,
)
from datamodules.decoding.excerpt import excerpt
from datamodules.decoding.picture import PictureDecoder
from datamodules.decoding.questions import parse_questions
from datamodules.reading.tar_shard import RawSample, read_shard
from datamodules.reading.vqa_files import read_vqa_files
from datamodules.recipes.recipe import Captions
from datamodules.sample import Unusable
from pretzel.errors import UserError
from pretzel.rng import stream

TEN = ["red"] * 4 + ["dark red"] * 3 + ["maroon"] * 2 + ["brown"]
VQA_ENTRY = {
    "question": "what color?",
    "question_id": 458752000,
    "image_id": 458752,
    "multiple_choice_answer": "red",
    "answer_type": "other",
    "question_type": "what color",
    "answers": [
        {"answer": answer, "answer_confidence": "yes", "answer_id": number}
        for number, answer in enumerate(TEN, start=1)
    ],
}
LLAVA = [
    {"from": "human", "value": "<image>\nwhat is it?"},
    {"from": "gpt", "value": "a square"},
    {"from": "human", "value": "of which color?"},
    {"from": "gpt", "value": "red\n"},
]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, []),
        ({"questions": None}, []),
        ({"questions": []}, []),
        ({"questions": [["is it?", "yes"], ["how many?", 3]]}, ["is it?=yes", "how many?=3"]),
        ({"questions": [{"question": "is it?", "answer": "yes"}]}, ["is it?=yes"]),
        ({"questions": [{"question": "a?", "answers": ["x", "y", "y"]}]}, ["a?=y"]),
        ({"questions": [{"question": "a?", "answers": ["x", "", "y"]}]}, ["a?=x"]),
        ({"questions": [VQA_ENTRY]}, ["what color?=red"]),
        ({"question": "is it?", "answer": " yes ", "caption": "t"}, ["is it?=yes"]),
        ({"conversations": LLAVA}, ["what is it?=a square", "of which color?=red"]),
        ({"conversations": []}, []),
        ({"conversations": [LLAVA[:2], LLAVA[:2]]}, ["what is it?=a square"] * 2),
        ({"question": None, "answer": None}, []),
        ({"question": "is it?", "answer": None}, []),
        ({"question": "a?", "answer": "z", "answers": ["x", "y", "y"]}, ["a?=z"]),
        ({"question": "a?", "answers": ["x", "y"], "multiple_choice_answer": " "}, ["a?=x"]),
    ],
)
def test_known_forms_of_questions(fields, expected):
    assert [f"{one.question}={one.answer}" for one in parse_questions(fields)] == expected


def test_types_that_are_no_texts_are_left_out_and_the_question_stays():
    (asked,) = parse_questions({"question": "a?", "answer": "b", "question_type": 3})
    assert (asked.answer, asked.question_type) == ("b", "")


def test_all_answers_are_kept_and_the_most_frequent_is_the_target():
    (asked,) = parse_questions({"questions": [VQA_ENTRY]})
    assert list(asked.answers) == TEN
    assert (asked.answer_type, asked.question_type) == ("other", "what color")
    (asked,) = parse_questions({"question": "?", "answers": ["b", "a", "a", "b"]})
    assert (asked.answer_type, asked.question_type) == ("", "")
    assert (asked.answer, asked.answers) == ("b", ("b", "a", "a", "b"))


@pytest.mark.parametrize(
    "fields",
    [
        {"questions": {"is it?": "yes"}},
        {"questions": "is it?"},
        {"questions": ["is it?", "yes"]},  # a pair where pairs belong
        {"questions": ["ab"]},  # would be question "a", answer "b"
        {"questions": [["a?", "b", "c"]]},
        {"questions": [["a?", None]]},
        {"questions": [["a?", True]]},
        {"questions": [["a?", ["b"]]]},
        {"questions": [["a?", " \u200b"]]},
        {"questions": [["", "b"]]},
        {"questions": [{"question": "a?"}]},
        {"questions": [{"q": "a?", "a": "b"}]},
        {"questions": [{"question": "a?", "answers": []}]},
        {"questions": [{"question": "a?", "answers": [{"text": "b"}]}]},
        {"conversations": "hello"},
        {"conversations": LLAVA[:3]},
        {"conversations": LLAVA[1:3]},
        {"conversations": [{"role": "user", "content": "a?"}] * 2},
        {"conversations": [LLAVA[0], LLAVA[1], LLAVA[0], LLAVA[1]]},  # two images
        {"conversations": [LLAVA[:2], LLAVA[:1]]},
        {"conversations": [LLAVA[:2], LLAVA[0]]},
    ],
)
def test_nothing_else_is_read_as_questions(fields):
    with pytest.raises(Unusable) as error:
        parse_questions(fields)
    assert error.value.reason == "unknown form"
    assert "\n" not in str(error.value)
    assert "known are [question, answer]" in str(error.value) or "segments" in str(error.value)


def captions(write_shard, encoded, members, **arguments):
    shard = write_shard("a.tar", {"x.png": encoded()} | members)
    return next(Shards(shard, **arguments).samples("train", 16)).caption


@pytest.mark.parametrize(
    ("text", "fields", "caption_field", "expected"),
    [
        (b" a cat\n", {"caption": "a dog"}, "caption", "a cat"),
        (b" \n", {"caption": "a dog"}, "caption", "a dog"),
        (b"", {"caption": None}, "caption", ""),
        (b"\0 \n", {"caption": "\u200b"}, "caption", ""),
        (b"", {"caption": ["", None, "a dog", "a pet"]}, "caption", "a dog"),
        (b"a cat", {"long": "a dog in the sun"}, ["long", ".txt"], "a dog in the sun"),
        (b"a cat", {"long": None}, ["long", ".txt"], "a cat"),
        ("\ufeffa cat".encode(), {}, "caption", "a cat"),
    ],
)
def test_captions_of_text_and_fields(write_shard, encoded, text, fields, caption_field, expected):
    members = {"x.txt": text, "x.json": json.dumps(fields).encode()}
    actual = captions(write_shard, encoded, members, caption_field=caption_field)
    assert actual == expected


def test_all_captions_are_kept_beside_the_one_that_is_chosen(write_shard, encoded):
    fields = {"caption": ["a dog", None, "a pet"]}
    shard = write_shard("a.tar", {"x.png": encoded(), "x.json": json.dumps(fields).encode()})
    choice = WeightedCaption([0.0, 0.0, 1.0])
    (sample,) = Shards(shard, caption_choice=choice).samples("train", 16)
    assert (sample.caption, sample.captions) == ("a pet", ("a dog", "a pet"))


def test_captions_are_chosen_at_random_by_weight_and_the_same_way_in_evaluation():
    three = ("short", "", "long")
    generator = stream(0)
    drawn = [RandomCaption().choose(three, generator) for _ in range(400)]
    assert drawn.count("short") == pytest.approx(200, abs=40)
    weighted = WeightedCaption([1.0, 5.0, 3.0])
    drawn = [weighted.choose(three, generator) for _ in range(400)]
    assert drawn.count("long") == pytest.approx(300, abs=35)
    assert set(drawn) == {"short", "long"}
    assert [c.choose(three, None) for c in (FirstCaption(), RandomCaption(), weighted)] == [
        "short",
        "short",
        "long",
    ]
    assert [WeightedCaption([1.0]).choose(("", "long"), g) for g in (None, generator)] == ["", ""]
    raw = RawSample(shard="a.tar", key="x", members={"txt": b"short"})
    for missing in ({}, {"long": None}, {"long": ""}, {"long": []}):
        assert read_captions(raw, missing, ["long", ".txt"]) == ("", "short")
    for weights in ([], [0.0], [1.0, -1.0], [float("inf")]):
        with pytest.raises(UserError, match="weights must be numbers from 0 on"):
            WeightedCaption(weights)


def test_a_random_caption_belongs_to_seed_epoch_and_sample(write_shard, encoded):
    members = {}
    for i in range(8):
        fields = {"caption": [f"{i} {j}" for j in range(8)]}
        members |= {f"{i}.png": encoded(), f"{i}.json": json.dumps(fields).encode()}
    shard = write_shard("a.tar", members)

    def epochs(seed):
        source = Shards(shard, val=shard, caption_choice=RandomCaption())
        module = WebDatasetDataModule(
            source, Captions(0.0), image_size=16, batch_size=8, steps_per_epoch=1, seed=seed
        )
        loader = module.train_dataloader()
        train = [sorted(d.text for b in loader for d in b.documents) for _ in range(2)]
        return train, [d.text for b in module.val_dataloader() for d in b.documents]

    (first, second), evaluated = epochs(0)
    assert epochs(0)[0] == [first, second]
    assert first != second
    assert epochs(1)[0][0] != first
    assert evaluated == [f"{i} 0" for i in range(8)]


def test_json_that_would_fill_the_memory_is_not_parsed(monkeypatch):
    monkeypatch.setattr(decoder, "_MOST_JSON", 99)
    decode = Shards("a.tar").decoder(PictureDecoder(image_size=16))
    large = RawSample(shard="a.tar", key="x", members={"json": b'{"caption": "%0100d"}' % 0})
    assert decode(large).reason == decode.texts(large).reason == "too large"


@pytest.fixture
def vqa_files(tmp_path):
    """The two files of VQAv2, in its published form."""
    asked = [
        {"image_id": image, "question": f"{number}?", "question_id": 10 * image + number}
        for image in (9, 4)
        for number in range(2)
    ]
    head = {"info": {"version": "2.0"}, "data_type": "mscoco", "license": {"name": "CC BY 4.0"}}
    questions = tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json"
    questions.write_text(json.dumps({"task_type": "Open-Ended", "questions": asked} | head))
    annotated = [VQA_ENTRY | {"question_id": one["question_id"]} for one in reversed(asked)]
    annotations = tmp_path / "v2_mscoco_val2014_annotations.json"
    annotations.write_text(json.dumps({"annotations": annotated} | head))
    return questions, annotations


def test_files_of_vqa_are_joined_by_question_and_ordered_by_image(vqa_files):
    by_image = read_vqa_files(*vqa_files)
    assert list(by_image) == ["9", "4"]
    asked = parse_questions({"questions": by_image["4"]})
    assert [one.question for one in asked] == ["0?", "1?"]
    assert [(one.answer, list(one.answers)) for one in asked] == [("red", TEN)] * 2
    assert [(one.answer_type, one.question_type) for one in asked] == [("other", "what color")] * 2


def test_an_answer_of_vqa_that_is_null_is_not_the_word_none(vqa_files):
    questions, annotations = vqa_files
    content = json.loads(annotations.read_text())
    for entry in content["annotations"]:
        entry["answers"] = [{"answer": None}]
    annotations.write_text(json.dumps(content))
    with pytest.raises(Unusable, match="known are"):
        parse_questions({"questions": read_vqa_files(questions, annotations)["9"]})


def test_files_that_are_not_those_of_vqa_are_named(vqa_files, tmp_path):
    questions, annotations = vqa_files
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "few.json").write_text('{"annotations": []}')
    (tmp_path / "odd.json").write_text('{"annotations": [{"question_id": 1}]}')
    (tmp_path / "list.json").write_text(
        '{"questions": [{"question_id": [], "image_id": 1, "question": "a?"}]}'
    )
    for first, second, message in [
        (tmp_path / "none.json", annotations, "none.json' do not exist"),
        (annotations, annotations, "is no file of VQAv2 questions"),
        (questions, tmp_path / "deep.json", "cannot be read as JSON"),
        (questions, tmp_path / "few.json", "have no question_id 90"),
        (questions, tmp_path / "odd.json", "must have question_id and answers"),
        (tmp_path / "list.json", annotations, "must have question_id, image_id and question"),
    ]:
        with pytest.raises(UserError, match=message):
            read_vqa_files(first, second)


def test_excerpts_are_one_short_line():
    deep = []
    for _ in range(10_000):
        deep = [deep]
    for value in ("a\nb" * 10**6, deep, list(range(10**6)), {"a": "b" * 1000}):
        assert len(excerpt(value)) <= 80
        assert "\n" not in excerpt(value)


def test_texts_are_read_without_images_and_images_of_chosen_samples_alone(write_shard, monkeypatch):
    decoded = []

    def decode(decoder, data, draw=None):
        decoded.append(data)
        raise Unusable("damaged")

    monkeypatch.setattr(PictureDecoder, "__call__", decode)
    members = {}
    for i in range(3):
        members |= {f"{i}.png": b"%d" % i, f"{i}.json": b'{"question": "is it?", "answer": "no"}'}
    shard = write_shard("a.tar", members | {"3.txt": b"\xff", "4.txt": b"t"})
    module = WebDatasetDataModule(Shards(shard), Captions(), 16, 1, 1)
    texts = [sample.questions for sample in module.evaluation_texts("train")]
    assert texts == [(("is it?", "no"),)] * 3 + [()]
    assert len(list(module.evaluation_texts("train", limit=1))) == 1
    assert decoded == []
    assert list(module.chosen_samples("train", {"1", "4"})) == []
    assert decoded == [b"1"]
    short = WebDatasetDataModule(Shards(shard), Captions(), 16, 1, 1, max_characters=5)
    assert [sample.questions for sample in short.evaluation_texts("train")] == [()]


class CountedFile(io.FileIO):
    """Counts the bytes that are read."""

    def readinto(self, buffer):
        count = super().readinto(buffer)
        self.num_read = getattr(self, "num_read", 0) + count
        return count


def test_images_of_local_shards_are_left_out_unread(write_shard):
    members = {}
    for i in range(8):
        members |= {f"{i}.png": b"\0" * 10**6, f"{i}.txt": b"t"}
    shard = write_shard("a.tar", members)
    files = []

    def opened(path):
        files.append(CountedFile(path))
        return io.BufferedReader(files[-1])

    assert [raw.members for raw in read_shard(shard, opened=opened, images=False)] == [
        {"txt": b"t"}
    ] * 8
    assert files[0].num_read < 10**6
