"""The real model on the real data: killed, run again, and bit by bit the same."""

import random
import time
from pathlib import Path

import pytest
import yaml
from killing import assert_equal, finish, outcome, serve, survive, write_cell

from pretzel.runs.config.overlay import Config, fold, read

pytestmark = pytest.mark.timeout(900)
ROOT = Path(__file__).parents[2]
BASE = ROOT / "ablations" / "base" / "easy_vqa.yaml"
SHRINK = ROOT / "tests" / "configs" / "shrink.yaml"
ARGUMENTS = {
    "Generation": {"num_images": 8, "batch_size": 4, "every_n_validations": 2},
    "SampleGrid": {"num_images": 2, "columns": 2},
    "VQAAccuracy": {"num_questions": 8, "num_validation_questions": 8, "blind_baseline": False},
}

SMALL = {
    "model": {
        "init_args": {
            "pretzel": {
                "init_args": {
                    "latent": {
                        "class_path": "pretzel.latent.Pixels",
                        "init_args": {"image_size": 16, "patch_size": 4, "noise": 0.1},
                    },
                    "split": {
                        "class_path": "pretzel.flow.ExplicitSplit",
                        "init_args": {"shallow": [1, 1], "deep": 1},
                    },
                    "shallow": {"init_args": {"conditioner": {"init_args": {"width": 32}}}},
                    "deep": {"init_args": {"conditioner": {"init_args": {"width": 32}}}},
                }
            }
        }
    },
    "data": {"init_args": {"image_size": 16}},
}
"""16 px, one layer a block, 32 wide."""


def config(folder, *overlays, keep=None, **trainer):
    """Return the shipped configuration, shrunk, with its callbacks or those named in ``keep``."""
    base = fold([read(BASE), read(SHRINK), *(Config(values=values) for values in overlays)]).values
    callbacks = yaml.safe_load(BASE.read_text())["trainer"]["callbacks"]
    kept = []
    for callback in callbacks:
        name = callback["class_path"].rpartition(".")[2]
        if keep is None or name in keep:
            callback.setdefault("init_args", {}).update(ARGUMENTS.get(name, {}))
            kept.append(callback)
    logger = {
        "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
        "init_args": {"save_dir": str(folder), "name": "", "version": ""},
    }
    base["data"]["init_args"]["steps_per_epoch"] = 5
    own = {"callbacks": kept, "logger": logger, "default_root_dir": str(folder)}
    return base | {"trainer": base["trainer"] | own | trainer}


def cell(folder, *overlays, **settings):
    return write_cell(folder, config(folder, *overlays, **settings))


def story(folder, kills, *overlays, **settings):
    """Compare an uninterrupted cell with one that is killed ``kills`` times."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    serve()
    straight = cell(folder / "straight", *overlays, **settings)
    begun = time.monotonic()
    finish(straight, seconds=600)
    duration = time.monotonic() - begun
    killed = cell(folder / "killed", *overlays, **settings)
    survive(killed, kills, duration, random.Random(seed))
    assert_equal(comparable(straight), comparable(killed))


def comparable(folder):
    found = outcome(folder)
    found["result"]["metrics"] = {
        name: value for name, value in found["result"]["metrics"].items() if "seconds" not in name
    }
    return found


def test_a_tiny_pretzel(tmp_path):
    keep = ("EMAWeightAveraging", "Likelihood", "VQAAccuracy", "LearningRateMonitor")
    story(tmp_path, 2, SMALL, keep=keep, max_steps=12, val_check_interval=3)


@pytest.mark.slow
def test_a_tiny_pretzel_read_by_two_workers(tmp_path):
    workers = {"data": {"init_args": {"num_workers": 2}}}
    story(tmp_path, 4, SMALL, workers, keep=("EMAWeightAveraging",), max_steps=20)


@pytest.mark.slow
def test_the_shipped_configuration_with_all_its_callbacks(tmp_path):
    story(tmp_path, 5, max_steps=14, val_check_interval=5)
