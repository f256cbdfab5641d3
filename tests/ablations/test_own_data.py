"""The base configuration that is tied to no data set, on a folder of pictures made here."""

import json
import warnings
from pathlib import Path

import numpy as np
import yaml
from PIL import Image, ImageDraw
from test_configs import content, overlay

from pretzel.__main__ import main

ROOT = Path(__file__).parents[2]
BASE = ROOT / "ablations" / "base" / "own_data.yaml"


def photos(folder, count, *, questions):
    """Make JPEG and PNG pictures of several sizes, with captions, and perhaps questions."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        size = tuple(int(side) for side in rng.integers(40, 90, 2))
        picture = Image.new("RGB", size, tuple(int(c) for c in rng.integers(0, 256, 3)))
        ImageDraw.Draw(picture).ellipse((5, 5, 35, 30), fill="white")
        path = folder / f"{number:03d}.{('jpg', 'png')[number % 2]}"
        picture.save(path)
        fields = {"caption": f"a white disk on ground number {number}"}
        if questions:
            fields["questions"] = [["what is white?", "the disk"], ["is it blue?", "no"]]
        path.with_suffix(".json").write_text(json.dumps(fields))


def small(folder, **places):
    """Return the options of a short run of the base, with all its callbacks, on a folder."""
    config = content(overlay(content(BASE), folder))
    config["data"]["init_args"]["source"] = {
        "class_path": "datamodules.Folder",
        "init_args": {"train": "photos", **places},
    }
    config["trainer"]["logger"] = {
        "class_path": "lightning.pytorch.loggers.CSVLogger",
        "init_args": {"save_dir": str(folder), "name": "", "version": ""},
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(config))
    return "-c", str(BASE), "-c", "small.yaml"


def run(*args):
    """Run a command; return which callbacks said that they have nothing to measure."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert main(list(args)) == 0
    said = [str(one.message) for one in caught if "measures nothing" in str(one.message)]
    return [sentence.split()[0] for sentence in said]


def logged(folder):
    return set((folder / "metrics.csv").read_text().splitlines()[0].split(","))


def test_with_questions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos", 24, questions=True)
    assert run("fit", *small(tmp_path, val=0.4)) == []
    assert {"val/nll_excess_bits_per_dim", "val/vqa"} <= logged(tmp_path)
    assert list(tmp_path.rglob("samples/step-*.png"))


def test_without_questions_and_without_a_validation_split(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos", 24, questions=False)
    files = small(tmp_path, test=0.4)
    assert run("fit", *files) == ["SampleGrid", "Generation", "VQAAccuracy"]
    (checkpoint,) = tmp_path.rglob("last.ckpt")
    assert run("test", *files, "--ckpt_path", str(checkpoint)) == ["VQAAccuracy"]
    names = {"test/nll_excess_bits_per_dim", "test/fid_pixels8", "test/fid_pixels8_n"}
    assert names <= logged(tmp_path)
    assert "test/vqa" not in logged(tmp_path)
    assert list(tmp_path.rglob("samples/test-step-*.png"))
