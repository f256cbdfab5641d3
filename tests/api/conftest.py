"""A tiny model, trained for two steps through the command line, once for all tests here."""

from pathlib import Path

import pytest
import yaml

from pretzel.__main__ import main

ROOT = Path(__file__).parents[2]
SMALL = {
    "model": {
        "init_args": {
            "pretzel": {
                "latent": {
                    "class_path": "pretzel.latent.Pixels",
                    "init_args": {"image_size": 8, "patch_size": 4, "noise": 0.05},
                },
                "split": {
                    "class_path": "pretzel.flow.ExplicitSplit",
                    "init_args": {"shallow": [1], "deep": 1},
                },
            },
        }
    },
    "data": {"init_args": {"image_size": 8}},
    "trainer": {
        "limit_val_batches": 0,
        "callbacks": [
            {"class_path": "callbacks.EMAWeightAveraging", "init_args": {"decay": 0.5}},
            {
                "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                "init_args": {"save_last": True, "every_n_train_steps": 1, "save_top_k": -1},
            },
        ],
    },
}
FILES = [ROOT / "ablations/base/easy_vqa.yaml", ROOT / "tests/configs/shrink.yaml"]


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """A folder with ``small.yaml`` and the run ``runs/lightning_logs/version_0``."""
    folder = tmp_path_factory.mktemp("project")
    small = SMALL | {"trainer": SMALL["trainer"] | {"default_root_dir": str(folder / "runs")}}
    (folder / "small.yaml").write_text(yaml.safe_dump(small))
    files = [word for file in [*FILES, folder / "small.yaml"] for word in ("-c", str(file))]
    assert main(["fit", *files]) == 0
    return folder


@pytest.fixture(scope="session")
def run(project):
    return project / "runs/lightning_logs/version_0"


@pytest.fixture(scope="session")
def config(project):
    return [*FILES, project / "small.yaml"]
