"""`pretzel import` writes a run as any other, complete or not at all."""

import pytest
import torch
import yaml
from importing import SMALL, checkpoint, imported, written
from safetensors import safe_open
from safetensors.torch import load_file

from pretzel.__main__ import main
from pretzel.cli.importing import output as writing

pytestmark = pytest.mark.usefixtures("elsewhere")


def test_an_import_trains_tests_and_draws(tmp_path):
    folder = imported(checkpoint(tmp_path, "T4"), "tarflow", *SMALL)
    config = ["-c", str(folder / "config.yaml")]
    small = {
        "data": {"init_args": {"batch_size": 2, "eval_batch_size": 2, "num_val_samples": 2}},
        "trainer": {
            "max_steps": 1,
            "val_check_interval": 1,
            "limit_test_batches": 1,
            "default_root_dir": str(tmp_path / "run"),
            "accelerator": "cpu",
        },
    }
    callbacks = written(folder)["trainer"]["callbacks"]
    for callback in callbacks:
        if callback["class_path"].endswith("SampleGrid"):
            callback["init_args"].update(num_images=1, columns=1)
    small["trainer"]["callbacks"] = callbacks
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(small))
    config += ["-c", str(tmp_path / "small.yaml")]
    assert main(["fit", *config]) == 0
    assert main(["test", *config]) == 0
    assert main(["sample", *config, "--prompt", "x", "--out", str(tmp_path / "drawn")]) == 0
    assert (tmp_path / "drawn" / "00000.png").is_file()


def test_a_torch_file_becomes_what_a_safetensors_file_becomes(tmp_path):
    one, other = (
        imported(checkpoint(tmp_path, "T4", suffix), "tarflow", *SMALL, out=suffix[1:])
        for suffix in (".safetensors", ".pt")
    )
    models = [written(folder)["model"] for folder in (one, other)]
    weights = [load_file(model["init_args"].pop("weights")) for model in models]
    assert models[0] == models[1]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_data_and_latent_sections_keep_their_paths(tmp_path):
    (tmp_path / "shards.tar").touch()
    shards = {"class_path": "datamodules.Shards", "init_args": {"train": "./shards.tar"}}
    data = {"class_path": "datamodules.WebDatasetDataModule", "init_args": {"source": shards}}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({"data": data}))
    options = [*SMALL, "--data", str(tmp_path / "data.yaml")]
    folder = imported(checkpoint(tmp_path, "T4"), "tarflow", *options)
    actual = written(folder)["data"]["init_args"]["source"]["init_args"]["train"]
    assert actual == str(tmp_path / "shards.tar")


def test_the_weights_name_where_they_are_from(tmp_path):
    folder = imported(checkpoint(tmp_path, "T4"), "tarflow", *SMALL)
    with safe_open(folder / "weights.safetensors", "pt") as file:
        named = {"source": "T4.safetensors", "family": "tarflow"}
        assert file.metadata().items() > named.items()


def test_nothing_is_overwritten_without_force(tmp_path, capsys):
    path = checkpoint(tmp_path, "T4")
    folder = imported(path, "tarflow", *SMALL)
    (folder / "config.yaml").write_text("mine")
    assert main(["import", "tarflow", str(path), "--out", str(folder), *SMALL]) == 2
    assert "--force" in capsys.readouterr().err
    assert (folder / "config.yaml").read_text() == "mine"
    imported(path, "tarflow", *SMALL, "--force")
    model = written(folder)["model"]["init_args"]["pretzel"]["init_args"]
    assert model["latent"]["init_args"]["image_size"] == 8


def test_a_full_disk_leaves_nothing(tmp_path, capsys, monkeypatch):
    def full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "save_exported", full)
    path = checkpoint(tmp_path, "T4")
    out = tmp_path / "deep" / "made"
    assert main(["import", "tarflow", str(path), "--out", str(out), *SMALL]) == 2
    assert "No space left" in capsys.readouterr().err
    assert not out.parent.exists()
