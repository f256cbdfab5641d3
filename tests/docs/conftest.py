"""A folder in which the commands and the Python of the pages run."""

import os
import shutil
from pathlib import Path

import pytest
import yaml
from doc_pages import ROOT

from pretzel.__main__ import main

SHRINK = ROOT / "tests" / "configs" / "shrink.yaml"
BASE = "ablations/base/easy_vqa.yaml"


def shrink(folder):
    """Return a file that makes a run small, and leaves ``last.ckpt`` and images in a folder."""
    small = yaml.safe_load(SHRINK.read_text())
    small["trainer"]["default_root_dir"] = str(folder)
    small["trainer"]["limit_predict_batches"] = 1
    small["trainer"]["callbacks"] = [
        {
            "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
            "init_args": {"dirpath": str(folder), "save_last": True, "save_top_k": 0},
        },
        {"class_path": "callbacks.PredictionWriter", "init_args": {"folder": str(folder / "p")}},
    ]
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(small))
    return path


@pytest.fixture(scope="session")
def workspace(tmp_path_factory):
    """What a user has after ``make demo``, of a model that has trained for two steps.

    The checkpoint stands where the pages name one, and ``shape.png`` is one of its images.
    """
    folder = tmp_path_factory.mktemp("pages")
    for name in ("ablations", "examples"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copytree(ROOT / "docs" / "results", folder / "docs" / "results")
    run = folder / "trained"
    run.mkdir()
    before = Path.cwd()
    os.chdir(folder)
    try:
        options = ["-c", BASE, "-c", str(shrink(run))]
        assert main(["fit", *options]) == 0
        assert main(["test", *options, "--ckpt_path", str(run / "last.ckpt")]) == 0
        assert main(["predict", *options, "--ckpt_path", str(run / "last.ckpt")]) == 0
    finally:
        os.chdir(before)
    checkpoint = run / "last.ckpt"
    for place in ("last.ckpt", "runs/quickstart/stacked/seed0/final.ckpt"):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(checkpoint, folder / place)
    shutil.copy(min((run / "p").glob("*.png")), folder / "shape.png")
    return folder


@pytest.fixture
def shrunk():
    """The function that writes the file which makes a run small."""
    return shrink


@pytest.fixture
def there(workspace, monkeypatch):
    """The same folder as working directory, with the example's package importable."""
    monkeypatch.chdir(workspace)
    # What `pip install -e` of the example does.
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "pretzel_causal_conv" / "src"))
    return workspace
