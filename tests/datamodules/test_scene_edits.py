"""Edits of scenes: they do what they say and nothing else, and nothing held out is trained on."""

import json
from collections import Counter
from functools import partial
from itertools import islice

import numpy as np
import pytest

from datamodules import ColouredShapes, EmojiSprites, SceneEdits, Scenes, Shards
from datamodules.decoding.picture import PictureDecoder
from datamodules.scenes.captions import CaptionReader
from datamodules.scenes.edits import EDIT_TYPES, edited, read_truth, untouched
from datamodules.scenes.look import box
from datamodules.scenes.references import references
from datamodules.scenes.scene import SceneObject, clear_direction
from datamodules.scenes.words import phrase
from datamodules.tools.pack import pack
from pretzel.errors import UserError

EASY = SceneEdits(Scenes(ColouredShapes(), soft_ground=False))
FULL = SceneEdits(Scenes(ColouredShapes(6, 8, turned=True)))
EMOJI = SceneEdits(Scenes(EmojiSprites(12)))
WORLDS = pytest.mark.parametrize("world", [EASY, FULL, EMOJI], ids=["easy", "full", "emoji"])


def steps(world, split, count):
    """Return edits with the objects before and after them, and those before the edit before."""
    for number in range(count):
        chain = world.chain(split, number)
        objects = [scene.objects for scene in chain.scenes]
        for place, edit in enumerate(chain.edits):
            yield edit, objects[place], objects[place + 1], objects[place - 1] if place else None


WAYS = (" to the left", " to the right", " up", " down")


@WORLDS
def test_an_edit_does_what_it_says_and_nothing_else(world):
    seen = Counter()
    for edit, before, after, earlier in steps(world, "train", 100):
        seen[edit.edit_type] += 1
        gone = [one for one in before if one not in after]
        new = [one for one in after if one not in before]
        says = edit.instruction.removeprefix("now ")
        # whoever reads the instruction finds the objects that it names
        for number, names in enumerate(references(before)):
            for name in names:
                if says in (f"remove {name}", f"make {name} {says.split()[-1]}"):
                    assert gone == [before[number]]
        match edit.edit_type:
            case "colour":
                ((one, other),) = zip(gone, new, strict=True)
                assert says.endswith(f" {other.colour}")
                assert one.colour != other.colour
                assert (one.kind, one.x, one.y) == (other.kind, other.x, other.y)
            case "kind":
                ((one, other),) = zip(gone, new, strict=True)
                assert says.endswith(f" {other.kind}")
                assert one.kind != other.kind
                assert (one.colour, one.x, one.y) == (other.colour, other.x, other.y)
            case "remove":
                assert (len(gone), new) == (1, [])
            case "add":
                (one,) = new
                assert gone == []
                assert says.startswith("add another") or phrase(one.kind, one.colour) in says
            case "move":
                seen.update(way for way in WAYS if says.endswith(way))
                ((one, other),) = zip(gone, new, strict=True)
                assert (one.kind, one.colour, one.size) == (other.kind, other.colour, other.size)
            case "swap":
                places = [{(one.x, one.y) for one in each} for each in (gone, new)]
                assert (len(gone), places[0]) == (2, places[1])
            case "undo":
                assert (says, after) == ("undo that", earlier)
        if edit.direction is not None:
            beside = gone[0] if edit.reference is None else before[edit.reference]
            assert clear_direction(new[0], beside) == edit.direction
    assert set(seen) == {*world.edits, *WAYS}
    assert set(EDIT_TYPES) - set(seen) == (set() if world.scenes.look.colours else {"colour"})


@WORLDS
def test_all_else_stays_as_it_is_to_the_pixel(world):
    look, size = world.scenes.look, 64
    for number in range(8):
        chain = world.chain("train", number)
        for before, after in zip(chain.scenes, chain.scenes[1:], strict=False):
            one, other = (np.asarray(look.render(scene, size)) for scene in (before, after))
            touched = np.zeros((size, size), dtype=bool)
            for thing in {*before.objects} ^ {*after.objects}:
                x, y, side = box(thing, size)
                touched[y : y + side, x : x + side] = True
            changed = (one != other).any(2)
            assert changed.any()
            assert not changed[~touched].any()
            kept = [before.objects[i] for i in untouched(before.objects, after.objects)]
            assert {*kept} == {*before.objects} & {*after.objects}


@WORLDS
def test_what_is_held_out_is_the_last_image_of_every_other_test_document(world):
    def axes(scene):
        return world.scenes.composer.held_out.axes((one.kind, one.colour) for one in scene.objects)

    found = Counter()
    for split in ("train", "test"):
        for number in range(40):
            *first, last = world.chain(split, number).scenes
            assert not any(map(axes, first))
            assert bool(axes(last)) == (split == "test" and number % 2 == 1)
            found.update(axes(last))
    assert len(found) > 1


def thing(kind, colour, x, y):
    return SceneObject(kind=kind, colour=colour, x=x, y=y, size=0.3)


def test_objects_are_called_by_what_means_them_alone():
    red, blue = thing("circle", "red", 0.2, 0.3), thing("circle", "blue", 0.8, 0.3)
    star = thing("star", "red", 0.75, 0.8)
    assert references([red]) == [["the circle", "the red circle"]]
    assert references([red, blue]) == [
        ["the red circle", "the red one", "the circle on the left", "the one on the left"],
        ["the blue circle", "the blue one", "the circle on the right", "the one on the right"],
    ]
    assert references([blue, star])[1] == [
        "the star", "the red star", "the red one", "the one at the bottom"
    ]  # fmt: skip
    names = references([red, blue, star])
    assert names[2] == ["the star", "the red star"]
    assert not {"the red one", "the circle"} & {name for own in names for name in own}
    twins = references([red, thing("circle", "red", 0.8, 0.7)])
    assert twins == [[], []]


def test_a_document_depends_on_seed_split_and_number_alone():
    other = SceneEdits(Scenes(ColouredShapes(), soft_ground=False, num_train=3))
    assert other.chain("train", 2) == EASY.chain("train", 2) != EASY.chain("train", 3)
    assert EASY.chain("val", 2) != EASY.chain("train", 2)
    pairs = SceneEdits(EASY.scenes, max_edits=1)
    assert {len(pairs.chain("train", number).edits) for number in range(20)} == {1}
    shards = EASY.shards("val")
    assert len({*EASY.identities(shards), *pairs.identities(shards)}) == 2 * len(shards)
    assert EASY.identities(shards) == SceneEdits(EASY.scenes).identities(shards)


def test_a_share_of_training_documents_begins_with_a_caption():
    world, read = SceneEdits(EASY.scenes, captioned=0.5), CaptionReader(EASY.scenes.look)
    for split, counts in (("train", range(5, 16)), ("test", [0])):
        raws = islice(world.read_texts(f"scenes-{split}-000000"), 20)
        segments = [json.loads(raw.members["json"])["segments"] for raw in raws]
        captions = [first["text"] for first, *_ in segments if "text" in first]
        assert all(map(read, captions))
        assert len(captions) in counts


def test_a_share_of_training_documents_describes_what_instructions_lead_to():
    def segments(world, split):
        raws = islice(world.read_texts(f"scenes-{split}-000000"), 20)
        return [json.loads(raw.members["json"])["segments"] for raw in raws]

    world = SceneEdits(EASY.scenes, described=0.5)
    counts = Counter()
    for number, own in enumerate(segments(world, "train")):
        described = [one["text"] for one in own if one.get("role") == "target"]
        scenes = world.chain("train", number).scenes
        counts[len(described) / (len(scenes) - 1)] += 1
        for text, scene in zip(described, scenes[1:], strict=bool(described)):
            said = CaptionReader(EASY.scenes.look)(text)
            named = Counter({(one.kind, one.colour): one.count for one in said.objects})
            assert named == Counter((one.kind, one.colour) for one in scene.objects)
        if len(described) == 1:
            assert [next(iter(one)) for one in own] == ["image", "text", "text", "image"]
    assert set(counts) == {0.0, 1.0}
    assert segments(world, "test") == segments(EASY, "test")


def test_packed_edits_are_the_same_documents_with_their_truth(tmp_path):
    world = SceneEdits(Scenes(ColouredShapes(), size=32, num_train=5, num_val=2, num_test=0))
    pack(world, tmp_path / "packed", name="edits")
    shards = Shards(str(tmp_path / "packed" / "train-00000.tar"))
    decoded = [
        list(source.decoded_by(source.decoder(PictureDecoder(image_size=32)), "train"))
        for source in (world, shards)
    ]
    for number, (own, packed) in enumerate(zip(*decoded, strict=True)):
        assert (own.key, own.segments, own.truth) == (packed.key, packed.segments, packed.truth)
        assert all(map(np.array_equal, own.images, packed.images))
        chain, last = world.chain("train", number), read_truth(packed.truth)
        assert last.edit == chain.edits[-1]
        assert (last.before, last.after) == tuple(scene.objects for scene in chain.scenes[-2:])
    assert read_truth({"skill": "single"}) is None


CIRCLE = thing("circle", "red", 0.2, 0.2)
SINGLE = Scenes(ColouredShapes(), skills=["single"])


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (partial(SceneEdits, EASY.scenes, max_edits=0), "max_edits must be at least 1, not 0"),
        (partial(SceneEdits, EASY.scenes, captioned=2.0), "captioned must be a probability"),
        (partial(SceneEdits, EASY.scenes, described=-0.1), "described must be a probability"),
        (partial(SceneEdits, EASY.scenes, []), "edits must be some of colour, kind, add, "),
        (partial(SceneEdits, EASY.scenes, ["undo"]), "not undo alone"),
        (partial(SceneEdits, EASY.scenes, ["add", "undo"], 1), "undo needs .* and max_edits=1"),
        (partial(SceneEdits, EMOJI.scenes, ["colour"]), "edits: colour needs .* 0 colours"),
        (
            partial(SceneEdits, Scenes(ColouredShapes(), max_objects=1), ["swap"]),
            "edits: swap needs more objects.* max_objects=1",
        ),
        (
            partial(SceneEdits, SINGLE, ["remove"]),
            "no chain of remove can be made of scenes of single: give more",
        ),
        (partial(edited, [CIRCLE], {1: None}), "objects that are there, from 0 to 0, not of 1"),
        (
            partial(edited, [CIRCLE], {}, [thing("star", "red", 0.3, 0.3)]),
            r"none is at \(0.30, 0.30\) for a star of size 0.30",
        ),
        (partial(edited, [CIRCLE], {0: thing("star", "red", 0.1, 0.5)}), "must be room for every"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(build, words):
    with pytest.raises(UserError, match=words):
        build()
