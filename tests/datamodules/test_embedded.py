"""The committed data: intact, captioned right, small, licensed."""

import hashlib
import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from datamodules import EasyVQA, FluentEmoji
from datamodules.data import DATA_DIR
from datamodules.data.captions import COLORS, SHAPES, caption_of, possible_attributes

RGB = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "black": (0, 0, 0),
    "gray": (128, 128, 128),
    "teal": (0, 128, 128),
    "brown": (165, 42, 42),
    "yellow": (255, 255, 0),
}


def test_shards_match_their_checksums_and_no_other_shard_lies_there():
    listed = {}
    for line in (DATA_DIR / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        listed[name] = digest
    actual = {
        path.relative_to(DATA_DIR).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in DATA_DIR.rglob("*.tar.gz")
    }
    assert actual == listed


def test_all_data_takes_less_than_12_mb():
    assert sum(path.stat().st_size for path in DATA_DIR.rglob("*.tar.gz")) < 9e6


def test_every_package_has_its_licence():
    texts = [path.read_text() for path in (DATA_DIR / "licenses").iterdir()]
    for holder in ("Victor Zhou", "Miles Johnson", "LobeHub"):
        assert any(holder in text and "Permission is hereby granted" in text for text in texts)


@pytest.mark.parametrize("source", [EasyVQA(), FluentEmoji()])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_split_holds_as_many_samples_as_it_says(source, split):
    keys = [raw.key for shard in source.shards(split) for raw in source.read(shard)]
    assert len(set(keys)) == len(keys) == source.num_samples(split)


def test_two_pictures_of_one_emoji_are_in_one_split():
    codes = [
        {
            raw.key.removeprefix("fluent_emoji_").replace("-fe0f", "")
            for shard in FluentEmoji().shards(split)
            for raw in FluentEmoji().read(shard)
        }
        for split in ("train", "val", "test")
    ]
    assert sum(map(len, codes)) == len(set.union(*codes)) == 1599


@pytest.fixture(scope="module")
def pictures_of_test():
    return list(EasyVQA().samples("test", 64))


def test_easy_vqa_colours_are_those_of_the_pixels(pictures_of_test):
    kinds = Counter()
    for sample in pictures_of_test:
        colors = Image.fromarray(sample.pixels).getcolors(64 * 64)
        (_, background), (_, shape) = sorted(colors, reverse=True)[:2]
        assert min(background) >= 230
        words = sample.caption.split()
        kinds[len(words), words[-1] == "shape"] += 1
        if words[1] in COLORS:
            assert shape == RGB[words[1]], sample.key
    # full; colour only; shape only; nothing known
    assert kinds == {(3, False): 888, (3, True): 34, (2, False): 66, (2, True): 12}


def test_easy_vqa_shapes_fill_their_boxes_as_they_should(pictures_of_test):
    # A circle fills pi/4 of its bounding box, a rectangle all of it, a triangle half of it or less.
    fills = {shape: [] for shape in SHAPES}
    for sample in pictures_of_test:
        shape = sample.caption.split()[-1]
        if shape in fills:
            background = sample.pixels[0, 0].astype(int)
            inside = np.abs(sample.pixels.astype(int) - background).sum(-1) > 150
            rows, columns = np.nonzero(inside)
            box = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
            if box >= 150:
                fills[shape].append(inside.sum() / box)
    circle, rectangle, triangle = (np.median(fills[shape]) for shape in SHAPES)
    assert circle == pytest.approx(np.pi / 4, abs=0.05)
    assert rectangle > 0.85
    assert triangle < 0.62


def test_easy_vqa_questions_are_all_there():
    assert sum(len(sample.questions) for sample in EasyVQA().texts("test")) == 9673


def test_emoji_captions_are_labels():
    captions = {sample.caption for sample in FluentEmoji().texts("test")}
    assert {"pink heart", "compass", "butterfly"} <= captions


def test_emoji_json_holds_tags():
    raw = next(FluentEmoji().read(FluentEmoji().shards("test")[0]))
    assert json.loads(raw.members["json"])["tags"]


@pytest.mark.parametrize(
    ("pairs", "caption"),
    [
        (
            [("what color is the shape?", "red"), ("what shape is present?", "circle")],
            "a red circle",
        ),
        ([("what color is the circle?", "red")], "a red circle"),
        ([("what is the teal shape?", "triangle")], "a teal triangle"),
        ([("is no red shape present?", "no")], "a red shape"),
        ([("is there not a red shape?", "no")], "a red shape"),
        ([("is there not a red shape?", "yes")], "a shape"),
        ([("is no red shape present?", "yes")], "a shape"),
        ([("is a circle present?", "yes")], "a circle"),
        ([("does the image not contain a circle?", "no")], "a circle"),
        ([("is a circle present?", "no"), ("is no triangle present?", "yes")], "a rectangle"),
        ([], "a shape"),
    ],
)
def test_caption_says_what_the_answers_settle(pairs, caption):
    assert caption_of(pairs) == caption


def test_answers_that_contradict_one_another_are_refused():
    with pytest.raises(ValueError, match="contradict"):
        caption_of([("is a circle present?", "yes"), ("is no circle present?", "yes")])


def test_a_negative_answer_excludes_only_what_it_names():
    colors, shapes = possible_attributes([("is there a red shape?", "no")])
    assert colors == set(COLORS) - {"red"}
    assert shapes == set(SHAPES)
