"""The sheet shows what was generated, where it belongs, at the same noise each time."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from world import KnownData, Recaller, draw, evaluate, make_trainer

from callbacks import SampleGrid
from pretzel.errors import UserError
from pretzel.media import Pictures
from pretzel.media.sheet import CELL, LABEL, sheet


def test_each_picture_stands_in_its_place_enlarged_exactly() -> None:
    names = [("red", "circle"), ("blue", "triangle"), ("teal", "rectangle")]
    images = torch.stack([draw(*name) for name in names])
    shown = Pictures(32).outputs(images)
    picture = np.asarray(sheet(shown, [" ".join(name) for name in names], columns=2))
    factor = CELL // 32
    assert picture.shape == (2 * (CELL + LABEL + 4), 2 * (CELL + 4), 3)
    for i, image in enumerate(images):
        x, y = (CELL + 4) * (i % 2) + 2, (CELL + LABEL + 4) * (i // 2) + 2
        cell = picture[y : y + CELL : factor, x : x + CELL : factor]
        expected = ((image + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        assert np.array_equal(cell, expected)
        label = picture[y + CELL : y + CELL + LABEL, x : x + CELL]
        assert label.min() < 99  # something is written, in black


def test_long_labels_stay_in_their_column() -> None:
    shown = Pictures(32).outputs(torch.ones(2, 3, 32, 32))
    picture = np.asarray(sheet(shown, ["m" * 200, ""], columns=2))
    assert picture[CELL + 2 :, : CELL + 2].min() < 99
    assert picture[:, CELL + 2 :].min() == 255


def test_writes_files_and_tensorboard_at_validation_and_test(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    grid = SampleGrid(num_images=4, columns=2)
    module = Recaller(noise=True)
    trainer = make_trainer(tmp_path, [grid], board=True, max_steps=2, val_check_interval=1)
    trainer.fit(module, datamodule=KnownData())
    trainer.test(module, datamodule=KnownData(), verbose=False)
    folder = Path(str(trainer.log_dir)) / "samples"
    names = ["step-00000001.png", "step-00000002.png", "test-step-00000002.png"]
    assert sorted(path.name for path in folder.iterdir()) == names
    pictures = [np.asarray(Image.open(folder / name)) for name in names]
    assert all(np.array_equal(picture, pictures[0]) for picture in pictures)
    events = EventAccumulator(str(trainer.log_dir)).Reload()
    assert set(events.Tags()["images"]) == {"val/samples", "test/samples"}


def test_takes_the_first_different_captions(tmp_path: Path) -> None:
    data = KnownData()
    data.samples = [data.samples[0], *data.samples]
    grid = SampleGrid(num_images=3)
    module = Recaller()
    make_trainer(tmp_path, [grid]).test(module, datamodule=data, verbose=False)
    assert grid._chosen == ["a red circle", "a red shape", "a red rectangle"]
    assert module.keys == [("samples",)]


def test_given_prompts_are_repeated(tmp_path: Path) -> None:
    grid = SampleGrid(prompts=["a red circle", "a blue circle"], num_images=3)
    evaluate(tmp_path, Recaller(), [grid])
    assert grid._chosen == ["a red circle", "a blue circle", "a red circle"]


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="columns must be at least 1, got 0"):
        SampleGrid(columns=0)
    with pytest.raises(UserError, match="prompts must not be empty"):
        SampleGrid(prompts=[])
