"""Edits of scenes: the judge is right of real pictures, the metric measures a model's."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from painted import forced
from PIL import Image as PictureFile
from test_own_images import results

from callbacks import EditAccuracy
from callbacks.scenes.edit_accuracy import JudgedEdit, edit_values
from callbacks.scenes.edit_rules import EditJudge
from datamodules import (
    AsWritten,
    Captions,
    ColouredShapes,
    EmojiSprites,
    SceneEdits,
    Scenes,
    WebDatasetDataModule,
)
from datamodules.scenes.edits import Edit, EditedScene
from datamodules.scenes.scene import Scene, SceneObject
from pretzel.errors import UserError
from pretzel.interleave import Stacked, TextPrefix
from pretzel.media.integers import arrays_to_floats

EASY = SceneEdits(Scenes(ColouredShapes(), soft_ground=False))
FULL = SceneEdits(Scenes(ColouredShapes(6, 8, turned=True)))
EMOJI = SceneEdits(Scenes(EmojiSprites(12)))


def rendered(look, scene):
    pixels = np.asarray(look.render(scene, 64), dtype=np.float32)
    return np.moveaxis(pixels, 2, 0) / 127.5 - 1


@pytest.mark.parametrize(
    ("world", "count", "least"),
    [
        (EASY, 40, 1.0),
        (FULL, 30, 1.0),
        pytest.param(EASY, 500, 0.995, marks=pytest.mark.slow),
        pytest.param(FULL, 500, 0.995, marks=pytest.mark.slow),
        pytest.param(EMOJI, 500, 0.985, marks=pytest.mark.slow),
    ],
)
def test_real_edits_are_done_and_repeated_sources_are_copied(world, count, least):
    look = world.scenes.look
    judge, real, repeated = EditJudge(look), [], []
    for number in range(count):
        chain = world.chain("test", number)
        before, after = chain.scenes[-2:]
        scene = EditedScene(edit=chain.edits[-1], before=before.objects, after=after.objects)
        source, target = rendered(look, before), rendered(look, after)
        for image, judged in ((target, real), (source, repeated)):
            verdict = judge(image, source, scene)
            is_held_out = number % 2 == 1
            judged.append(JudgedEdit(scene=scene, is_held_out=is_held_out, verdict=verdict))
    values, copies = edit_values(real), edit_values(repeated)
    assert min(values["edits/done"], values["edits/kept"]) >= least, values
    assert (values["edits/copied"], values["edits/distance"]) == (0, 0)
    assert values["edits/done_held_out_n"] == count // 2
    assert copies["edits/copied"] >= least
    assert (copies["edits/done"], copies["edits/distance"]) == (0, 0)
    kinds = Counter(f"edits/done_{one.scene.edit.edit_type}" for one in real)
    assert {name: values[f"{name}_n"] for name in kinds} == kinds
    assert set(values) <= {name.removeprefix("test/") for name in EditAccuracy(look).metric_names()}


def thing(kind, colour, x, y):
    return SceneObject(kind=kind, colour=colour, x=x, y=y, size=0.3)


RED, BLUE = thing("circle", "red", 0.2, 0.25), thing("square", "blue", 0.8, 0.25)
STAR = thing("star", "red", 0.5, 0.8)
LOW_RED, GREEN = replace(RED, y=0.75), replace(RED, colour="green")
HIGH_BLUE = replace(BLUE, y=0.2)
HIGH_STAR = replace(STAR, x=0.4, y=0.2)
TWIN = replace(RED, x=0.8, y=0.7)


@pytest.mark.parametrize(
    ("edit_type", "direction", "after", "shown", "done", "kept"),
    [
        ("colour", None, [GREEN, BLUE], [GREEN, BLUE], True, True),
        ("colour", None, [GREEN, BLUE], [RED, BLUE], False, True),
        ("colour", None, [GREEN, BLUE], [GREEN], True, False),
        ("colour", None, [GREEN, BLUE], [replace(GREEN, y=0.6), BLUE], False, True),
        ("colour", None, [GREEN, BLUE], [GREEN, HIGH_BLUE, STAR], True, False),
        ("remove", None, [BLUE], [BLUE], True, True),
        ("remove", None, [BLUE], [RED], False, False),
        ("remove", None, [BLUE], [], True, False),
        ("remove", None, [BLUE], [BLUE, STAR], True, False),
        ("add", None, [RED, BLUE, STAR], [RED, BLUE, replace(STAR, x=0.3)], True, True),
        ("add", "below", [RED, BLUE, STAR], [RED, BLUE, replace(STAR, x=0.2)], True, True),
        ("add", "below", [RED, BLUE, STAR], [BLUE, LOW_RED, HIGH_STAR], False, False),
        ("add", None, [RED, BLUE, TWIN], [RED, BLUE], False, True),
        ("add", "right of", [RED, BLUE, TWIN], [RED, BLUE, replace(TWIN, x=0.6)], True, True),
        ("move", "below", [LOW_RED, BLUE], [replace(RED, y=0.5), BLUE], True, True),
        ("move", "below", [LOW_RED, BLUE], [RED, BLUE], False, True),
        ("move", "below", [LOW_RED, BLUE], [RED, LOW_RED, BLUE], False, False),
        ("swap", None, [replace(RED, x=0.8), replace(BLUE, x=0.2)], [RED, BLUE], False, None),
    ],
)  # fmt: skip
def test_what_was_asked_and_all_else_are_told_apart(edit_type, direction, after, shown, done, kept):
    look, ground = ColouredShapes(), ((230, 230, 225),)
    edit = Edit(
        edit_type=edit_type, instruction="", direction=direction,
        reference=0 if edit_type == "add" and direction else None,
    )  # fmt: skip
    scene = EditedScene(edit=edit, before=(RED, BLUE), after=tuple(after))
    source, image = (
        rendered(look, Scene(objects=tuple(objects), ground=ground))
        for objects in (scene.before, shown)
    )
    verdict = EditJudge(look)(image, source, scene)
    assert (verdict.done, verdict.kept) == (done, kept)
    assert verdict.copied == (shown == [RED, BLUE])
    if done and kept:
        assert (verdict.distance > 0) == (len(shown) > len(after))


def data_of(source):
    return WebDatasetDataModule(source, AsWritten(), image_size=32, batch_size=1, steps_per_epoch=1)


SMALL = Scenes(ColouredShapes(), size=32, max_objects=2, num_train=1, num_val=1, num_test=4)


def test_what_a_model_makes_is_judged_shown_and_kept(tmp_path):
    data, metric = data_of(SceneEdits(SMALL)), EditAccuracy(ColouredShapes(), batch_size=3)
    documents = list(data.evaluation_documents("test"))
    # every other edit is a copy of its source
    painted = [arrays_to_floats(one.images)[-1 - i % 2] for i, one in enumerate(documents)]
    values = results(tmp_path, forced(painted, Stacked), metric, data)
    assert values["edits/done_n"] == 4
    assert (values["edits/done"], values["edits/copied"], values["edits/distance"]) == (0.5, 0.5, 0)
    assert values["edits/kept"] == 1
    assert values["edits/done_held_out"] == 0
    assert {f"test/{name}" for name in values} <= metric.metric_names()
    assert metric.facts["test/edits/done"]["n"] == 4
    items = metric.sample_results
    assert [one["values"]["test/edits/done"] for one in items] == [1, 0, 1, 0]
    assert [one["item"] for one in items] == [one.key for one in documents]
    with PictureFile.open(next(tmp_path.rglob("edits/test-step-*.png"))) as sheet:
        assert sheet.size == (6 * 100, 2 * 114)


def test_what_cannot_be_measured_is_said_before(tmp_path):
    metric, world = EditAccuracy(ColouredShapes()), SceneEdits(SMALL)
    with pytest.warns(UserWarning, match="TextPrefix models no image behind another one"):
        assert results(tmp_path, forced([], TextPrefix), metric, data_of(world)) == {}
    captions = WebDatasetDataModule(SMALL, Captions(), 32, 1, 1)
    with pytest.warns(UserWarning, match="needs documents of datamodules.SceneEdits"):
        assert results(tmp_path, forced([], Stacked), metric, captions) == {}
    few = EditAccuracy(ColouredShapes(["triangle", "star"]))
    with pytest.raises(UserError, match=r"look must have all kinds and colours .* has no \w+ "):
        results(tmp_path, forced([], Stacked), few, data_of(world))
