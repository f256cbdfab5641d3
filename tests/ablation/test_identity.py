"""The two identities of a cell: what trains, and what only measures."""

from copy import deepcopy
from pathlib import Path

import pytest

from pretzel.ablation.identity.fingerprint import fingerprint_of

CONFIG = {
    "seed_everything": 1,
    "ckpt_path": "runs/old.ckpt",
    "trainer": {
        "max_steps": 5,
        "logger": True,
        "limit_test_batches": None,
        "callbacks": [
            {"class_path": "callbacks.VQAAccuracy", "init_args": {"num_questions": 10}},
            {"class_path": "callbacks.EMAWeightAveraging", "init_args": {"decay": 0.9}},
            {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {}},
        ],
    },
    "model": {
        "class_path": "pretzel.training.PretzelModule",
        "init_args": {
            "seed": 1,
            "text_weight": 0.5,
            "weights": "stage.safetensors",
            "guidance": {"class_path": "pretzel.sampling.NoGuidance", "init_args": {}},
            "denoiser": {"class_path": "pretzel.sampling.NoDenoiser", "init_args": {}},
        },
    },
    "data": {"class_path": "datamodules.WebDatasetDataModule", "init_args": {"seed": 1}},
}
DATA = {"train/0": "a", "test/0": "b"}


def changed(path, value):
    config = deepcopy(CONFIG)
    node = config
    *parents, last = path
    for part in parents:
        node = node[part]
    node[last] = value
    return fingerprint_of(config, {}, DATA)


@pytest.fixture
def base():
    return fingerprint_of(CONFIG, {}, DATA)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("trainer", "max_steps"), 6),
        (("seed_everything",), 2),
        (("model", "init_args", "text_weight"), 0.6),
        (("trainer", "callbacks", 1, "init_args", "decay"), 0.8),
        # a denoiser that is trained is no mere measurement
        (
            ("model", "init_args", "denoiser"),
            {"class_path": "pretzel.sampling.LearnedDenoiser", "init_args": {}},
        ),
    ],
)
def test_what_trains(base, path, value):
    assert changed(path, value).training != base.training


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("trainer", "callbacks", 0, "init_args", "num_questions"), 20),
        (("trainer", "limit_test_batches"), 3),
        (
            ("model", "init_args", "guidance"),
            {"class_path": "pretzel.sampling.LinearGuidance", "init_args": {"weight": 2}},
        ),
        (
            ("model", "init_args", "denoiser"),
            {"class_path": "pretzel.sampling.ScoreDenoiser", "init_args": {}},
        ),
    ],
)
def test_what_only_measures(base, path, value):
    other = changed(path, value)
    assert other.training == base.training
    assert other.evaluation != base.evaluation


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("trainer", "logger"), False),
        (("ckpt_path",), None),
        (("trainer", "callbacks", 2, "init_args"), {"dirpath": "elsewhere", "save_top_k": 3}),
    ],
)
def test_what_changes_nothing(base, path, value):
    other = changed(path, value)
    assert (other.training, other.evaluation) == (base.training, base.evaluation)


def test_a_metric_may_be_added_and_taken_out(base):
    config = deepcopy(CONFIG)
    added = {"class_path": "callbacks.Likelihood", "init_args": {}}
    config["trainer"]["callbacks"].insert(0, added)
    other = fingerprint_of(config, {}, DATA)
    assert other.training == base.training
    assert other.evaluation != base.evaluation


def test_data_by_split(base):
    train = fingerprint_of(CONFIG, {}, DATA | {"train/0": "c"})
    test = fingerprint_of(CONFIG, {}, DATA | {"test/0": "c"})
    assert train.training != base.training
    assert train.evaluation == base.evaluation
    assert test.training == base.training
    assert test.evaluation != base.evaluation


def test_files_count_by_what_is_in_them(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("one").mkdir()
    Path("one/stage.safetensors").write_bytes(b"weights")
    key = ("model", "init_args", "weights")
    held = changed(key, "one/stage.safetensors")
    assert held.training != base.training  # there is no such file there
    Path("one").rename("two")
    assert changed(key, "two/stage.safetensors").training == held.training
    Path("two/stage.safetensors").write_bytes(b"other weights")
    assert changed(key, "two/stage.safetensors").training != held.training


def test_a_stage_counts_by_its_identity():
    config = deepcopy(CONFIG)
    path = "runs/grid/stages/s1/weights.safetensors"
    config["model"]["init_args"]["weights"] = path
    first, second = (
        fingerprint_of(config, {path: f"stage s1 {mark}"}, DATA) for mark in ("1", "2")
    )
    assert first.training != second.training


def test_the_code_behind_each_is_told_apart(base):
    assert "pretzel.training.module" in base.code.modules
    assert "callbacks.ema" in base.code.modules
    assert "callbacks.vqa_accuracy" not in base.code.modules
    assert "callbacks.vqa_accuracy" in base.measuring_code.modules
    assert "torch" in base.code.versions
