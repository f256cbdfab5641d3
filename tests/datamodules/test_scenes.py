"""Scenes: captions are true and can be read, nothing held out is trained on."""

import json
from collections import Counter, defaultdict
from dataclasses import replace
from functools import cache
from itertools import chain, combinations, islice

import numpy as np
import pytest

from datamodules import ColouredShapes, EmojiSprites, Scenes, Shards
from datamodules.scenes.captions import CaptionReader, write_caption
from datamodules.scenes.held_out import AXES
from datamodules.scenes.look import box
from datamodules.scenes.scene import clear_direction
from datamodules.tools.pack import pack
from pretzel.errors import UserError

EASY = Scenes(ColouredShapes(), soft_ground=False)
FULL = Scenes(ColouredShapes(6, 8, turned=True))
EMOJI = Scenes(EmojiSprites(100))
WORLDS = pytest.mark.parametrize("world", [EASY, FULL, EMOJI], ids=["easy", "full", "emoji"])


@cache
def texts(world, split, count):
    raws = chain.from_iterable(map(world.read_texts, world.shards(split)))
    return [json.loads(raw.members["json"]) for raw in islice(raws, count)]


@WORLDS
def test_captions_are_true_of_their_scenes_and_can_be_read(world):
    read = CaptionReader(world.look)
    skills = Counter()
    for number in range(200):
        composed = world.scene("train", number)
        description, objects = composed.description, composed.scene.objects
        assert read(write_caption(description)) == description
        named = [one for one in description.objects for _ in range(one.count)]
        for said, one in zip(named, objects, strict=True):
            assert said.kind == one.kind
            assert said.colour in (None, one.colour)
        for relation in description.relations:
            there = objects[relation.subject], objects[relation.reference]
            assert clear_direction(*there) == relation.direction
        skills[description.skill] += 1
    assert set(skills) == set(world.skills)


@WORLDS
def test_objects_change_pixels_of_their_own_square_alone(world):
    for number in range(10):
        scene = world.scene("train", number).scene
        edges = [box(one, 64) for one in scene.objects]
        for (x, y, side), (other_x, other_y, other_side) in combinations(edges, 2):
            apart = max(x, other_x) - min(x + side, other_x + other_side)
            assert max(apart, max(y, other_y) - min(y + side, other_y + other_side)) >= 0
        pictures = (scene, replace(scene, objects=scene.objects[1:]))
        one, other = (np.asarray(world.look.render(each, 64)) for each in pictures)
        x, y, side = edges[0]
        inside = np.zeros((64, 64), dtype=bool)
        inside[y : y + side, x : x + side] = True
        changed = (one != other).any(2)
        assert changed.any()
        assert not changed[~inside].any()


COUNTS = pytest.mark.parametrize("count", [400, pytest.param(6000, marks=pytest.mark.slow)])


@WORLDS
@COUNTS
def test_what_is_held_out_is_never_trained_on_and_in_half_of_the_test(world, count):
    assert not any(sample["held_out"] for sample in texts(world, "train", count))
    test = texts(world, "test", count // 4)
    for number, sample in enumerate(test):
        assert bool(sample["held_out"]) == (number % 2 == 1)
        assert set(sample["held_out"]) <= AXES[sample["skill"]]
    new = {axis for sample in test for axis in sample["held_out"]}
    assert new == {"kinds", "count"} | ({"kind_colour"} if world.look.colours else set())
    # and yet every kind and every colour is trained on
    seen = [one for sample in texts(world, "train", count) for one in sample["objects"]]
    assert {one["kind"] for one in seen} == set(world.look.kinds)
    assert {one["colour"] for one in seen} == set(world.look.colours or [None])


BLIND = {"exist": 0.5, "relation": 0.5, "comparison": 0.5}
EASY_BLIND = BLIND | {"colour": 0.35, "kind": 0.39, "count": 0.31}
FULL_BLIND = BLIND | {"colour": 0.17, "kind": 0.23, "count": 0.3}
EMOJI_BLIND = BLIND | {"kind": 0.1, "count": 0.24}


@pytest.mark.parametrize(
    ("world", "known", "count"),
    [
        (EASY, EASY_BLIND, 800),
        pytest.param(EASY, EASY_BLIND, 6000, marks=pytest.mark.slow),
        pytest.param(FULL, FULL_BLIND, 6000, marks=pytest.mark.slow),
        pytest.param(Scenes(EmojiSprites()), EMOJI_BLIND, 6000, marks=pytest.mark.slow),
    ],
)
def test_the_best_answers_without_the_image_are_right_so_often(world, known, count):
    """The most frequent answer to the same question in other scenes."""
    samples = texts(world, "train", count)
    answers = defaultdict(Counter)
    for sample in samples[: count // 2]:
        for asked in sample["questions"]:
            answers[asked["question"]][asked["answer"]] += 1
    hits = defaultdict(list)
    for sample in samples[count // 2 :]:
        for asked in sample["questions"]:
            if counts := answers[asked["question"]]:
                best = counts.most_common(1)[0][0]
                hits[asked["question_type"]].append(best == asked["answer"])
    assert hits.keys() == known.keys()
    for name, own in hits.items():
        assert sum(own) / len(own) == pytest.approx(known[name], abs=1.5 / len(own) ** 0.5)


def test_a_sample_depends_on_seed_split_and_number_alone():
    other = Scenes(EASY.look, soft_ground=False, num_train=3)
    assert [other.scene("train", 2)] == [EASY.scene("train", 2)]
    assert EASY.scene("val", 2) != EASY.scene("train", 2) != EASY.scene("train", 3)
    assert Scenes(EASY.look, seed=1).scene("train", 2) != EASY.scene("train", 2)
    same, larger = EASY.identities(EASY.shards("val")), Scenes(EASY.look, size=96)
    assert same == EASY.identities(EASY.shards("val"))
    assert len({*same, *larger.identities(larger.shards("val"))}) == 2 * len(same)


def test_packed_scenes_are_the_same_samples(tmp_path):
    world = Scenes(EASY.look, size=32, num_train=5, num_val=2, num_test=0)
    pack(world, tmp_path / "packed", name="scenes")
    shard = str(tmp_path / "packed" / "train-00000.tar")
    packed, own = (list(s.samples("train", 32)) for s in (Shards(shard), world))
    assert packed == own
    assert [sample.truth for sample in packed] == [sample.truth for sample in own]
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(packed, own, strict=True))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Scenes(EASY.look, size=24), "size must be at least 32 pixels"),
        (lambda: Scenes(EMOJI.look, size=32), "raise size or lower max_objects"),
        (lambda: Scenes(EASY.look, max_objects=5), "max_objects must be at most 4, not 5"),
        (lambda: Scenes(EASY.look, max_objects=0), "max_objects must be at least 1, not 0"),
        (lambda: Scenes(EMOJI.look, skills=["colours"]), "skills: colours needs more"),
        (lambda: Scenes(EASY.look, max_objects=2, skills=["dense"]), "skills: dense needs more"),
        (lambda: Scenes(EASY.look, skills=[]), "skills must be some of single, "),
        (lambda: ColouredShapes(7), "kinds must be from 1 to 6, or names, not 7"),
        (lambda: ColouredShapes(["circle", "blob"]), "kinds must be some of .* not 'blob'"),
        (lambda: ColouredShapes(4, ["red", "red"]), "colours must be names, none twice"),
        (lambda: EmojiSprites(["frog", "wug"]), "frog, whale, .* not 'wug'"),
        (lambda: CaptionReader(EASY.look)("a red frog"), "'a red frog' is none of these scenes"),
        (lambda: CaptionReader(EASY.look)("two circle"), "two 'circle' cannot be read"),
        (
            lambda: CaptionReader(EASY.look)("a star and a star above the square"),
            "'the square' cannot be read",
        ),
    ],
)
def test_mistakes_are_one_sentence(build, words):
    with pytest.raises(UserError, match=words):
        build()


def test_a_world_of_one_object():
    world = Scenes(ColouredShapes(["star"], ["red"]), max_objects=1)
    assert set(world.skills) == {"single", "colours"}
    assert {sample["caption"] for sample in texts(world, "test", 20)} == {"a star", "a red star"}
