"""The judge of scenes: right of real pictures, wrong of others, number apart from kinds."""

from functools import partial

import numpy as np
import pytest
import torch

from callbacks import SceneAccuracy
from datamodules import ColouredShapes, EmojiSprites, Scenes
from datamodules.scenes.captions import write_caption
from datamodules.scenes.description import SKILLS
from pretzel.testing import run_laws

EASY = Scenes(ColouredShapes(), soft_ground=False)
FULL = Scenes(ColouredShapes(6, 8, turned=True))


def rendered(world, count, split="test"):
    composed = [world.scene(split, number) for number in range(count)]
    pictures = [np.asarray(world.look.render(one.scene, world.size)) for one in composed]
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 127.5 - 1
    return images, [write_caption(one.description) for one in composed]


def measured(world, images, captions):
    metric = SceneAccuracy(world.look)
    metric.prepare(torch.device("cpu"))
    assert all(map(metric.accepts, captions))
    metric.update(images, captions)
    return metric.compute()


@pytest.mark.parametrize(
    ("world", "count", "least"),
    [
        (EASY, 40, 1.0),
        (FULL, 40, 1.0),
        (Scenes(EmojiSprites()), 24, 0.95),
        pytest.param(EASY, 1000, 0.995, marks=pytest.mark.slow),
        pytest.param(FULL, 1000, 0.995, marks=pytest.mark.slow),
        pytest.param(Scenes(EmojiSprites()), 1000, 0.985, marks=pytest.mark.slow),
        pytest.param(Scenes(EmojiSprites(100)), 500, 0.93, marks=pytest.mark.slow),
    ],
)
def test_real_pictures_are_right(world, count, least):
    values = measured(world, *rendered(world, count))
    assert values["scenes/right"] >= least, values
    assert values["scenes/right_n"] == count
    held_out = [n for name, n in values.items() if name.endswith("_held_out_n")]
    assert sum(held_out) == count // 2
    # a skill and a part of what is right may have the same word, never the same value
    assert sum(held_out) + sum(values.get(f"scenes/{skill}_n", 0.0) for skill in SKILLS) == count


def test_blurred_pictures_with_noise_are_still_read():
    images, captions = rendered(EASY, 30)
    blurred = torch.nn.functional.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
    noise = 0.03 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    assert measured(EASY, blurred + noise, captions)["scenes/right"] >= 0.9


def test_other_captions_are_wrong_and_so_is_noise():
    images, captions = rendered(EASY, 20)
    others = measured(EASY, images, captions[7:] + captions[:7])
    assert others["scenes/right"] < 0.3
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    for nothing in (noise, torch.zeros_like(images)):
        assert measured(EASY, nothing, captions)["scenes/right"] == 0


@pytest.mark.parametrize(
    ("caption", "wrong"),
    [
        ("a red circle and a blue square", set()),
        ("a circle and a square", set()),
        ("a circle left of a square", set()),
        ("a square right of a circle", set()),
        ("a circle above a square", {"relations"}),
        ("a blue circle and a red square", {"colours"}),
        ("a red circle", {"number", "kinds"}),
        ("two circles", {"kinds"}),
        ("a red circle, a blue square right of the red circle, and a red star below the red circle",
         {"number", "kinds", "colours", "relations"}),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_apart(caption, wrong):
    image = np.full((64, 64, 3), 230, dtype=np.uint8)
    y, x = np.mgrid[:64, :64]
    image[(x - 16) ** 2 + (y - 32) ** 2 < 80] = (214, 33, 33)
    image[22:42, 38:58] = (38, 76, 214)
    images = torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1
    values = measured(EASY, images, [caption])
    parts = ("number", "kinds", "colours", "relations")
    assert {name for name in parts if values.get(f"scenes/right_{name}") == 0} == wrong
    assert values["scenes/right"] == (not wrong)


def test_it_obeys_the_laws_of_metrics():
    run_laws(partial(SceneAccuracy, ColouredShapes(3, 8)))


def test_a_prompt_of_another_world_is_not_accepted():
    assert not SceneAccuracy(EASY.look).accepts("a photo of a dog")
