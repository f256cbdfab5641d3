"""The files of the small project that the tests configure, run and ablate."""

import os
import sys
from pathlib import Path

import pytest
import yaml

HERE = Path(__file__).parent
PYTHONPATH = os.pathsep.join([str(HERE), str(HERE.parents[1])])  # lab, and the code of this tree

BASE = {
    "trainer": {
        "max_steps": 6,
        "accelerator": "cpu",
        "devices": 1,
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    },
    "model": {
        "class_path": "lab.LeastSquares",
        "init_args": {
            "features": {"class_path": "lab.Linear", "init_args": {"scale": 3.0, "offset": 0.5}},
            "lr": 0.01,
        },
    },
    "data": {"class_path": "lab.Line", "init_args": {"rows": 32}},
}


def write(name, values):
    Path(name).write_text(yaml.safe_dump(values, sort_keys=False))
    return name


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project folder as working directory, with base.yaml and the lab module in reach."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(HERE), *sys.path])
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)
    write("base.yaml", BASE)
    return tmp_path
