"""Mistakes about latent spaces, made in YAML: one sentence of the command, no traceback."""

from pathlib import Path

import pytest
import torch
import yaml

from pretzel.__main__ import main
from pretzel.latent.linear import save_linear

ROOT = Path(__file__).parents[2]
BASE = ROOT / "ablations" / "base" / "easy_vqa.yaml"
FEATURES = ROOT / "ablations" / "latents" / "fae_features.yaml"
SHIPPED = ROOT / "pretzel" / "latent" / "autoencoder.safetensors"
SHRINK = ROOT / "tests" / "configs" / "shrink.yaml"


def linear(folder: Path, channels: int) -> dict:
    """Write linear latents of so many channels; return the space in YAML."""
    path = folder / f"linear{channels}.safetensors"
    covariance = torch.diag(torch.linspace(1, 2, 192))
    sizes = dict(channels=channels, image_size=64, patch_size=8)
    save_linear(path, mean=torch.zeros(192), covariance=covariance, **sizes)
    arguments = {"noise": 0.1, "weights": str(path)}
    return {"class_path": "pretzel.latent.LinearLatents", "init_args": arguments}


def run(command: str, base: Path, changes: dict, *options: str) -> int:
    Path("changes.yaml").write_text(yaml.safe_dump(changes))
    files = [word for file in (base, SHRINK, "changes.yaml") for word in ("-c", str(file))]
    plain = ("--trainer.callbacks", "null", "--trainer.logger", "false")
    return main([command, *files, *plain, *options])


def in_space(latent: dict) -> dict:
    return {"model": {"init_args": {"pretzel": {"init_args": {"latent": latent}}}}}


def error(capsys: pytest.CaptureFixture[str]) -> str:
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return text[text.index("pretzel: error: ") :]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "model.init_args.network.init_args.encoder.init_args.input_size=100",
            "input_size must be a multiple of 16, the stride of block 10, got 100",
        ),
        (
            "data.init_args.image_size=32",
            "images must be 64 x 64 pixels (image_size of the feature encoder), got (32, 32)",
        ),
    ],
)
def test_sizes_that_do_not_fit(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("fit", FEATURES, {}, f"--{options}") == 2
    assert message in error(capsys)


@pytest.mark.parametrize(
    ("kind", "path", "message"),
    [
        ("FAE", ".", "FAE: weights must name a file that export wrote, got .: a folder"),
        (
            "LinearLatents",
            str(SHIPPED),
            "LinearLatents: weights must name a file of linear latents",
        ),
    ],
)
def test_a_folder_or_another_file_in_the_place_of_weights(
    kind, path, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    arguments = {"noise": 0.1, "weights": path}
    latent = {"class_path": f"pretzel.latent.{kind}", "init_args": arguments}
    assert run("fit", BASE, in_space(latent)) == 2
    assert message in error(capsys)


def test_a_checkpoint_of_latents_of_other_channels(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    eight, four = linear(tmp_path, 8), linear(tmp_path, 4)
    assert run("fit", BASE, in_space(eight), "--trainer.enable_checkpointing", "true") == 0
    (checkpoint,) = map(str, tmp_path.rglob("*.ckpt"))
    capsys.readouterr()
    assert run("test", BASE, in_space(four), "--ckpt_path", checkpoint) == 2
    assert "input.weight has shape (128, 8) instead of (128, 4)" in error(capsys)
    files = ("-c", str(BASE), "-c", str(SHRINK), "-c", "changes.yaml")
    sample = ("--ckpt_path", checkpoint, "--prompt", "a red circle", "--out", "s")
    assert main(["sample", *files, *sample]) == 2
    assert "must be used with the latent it was trained with, linear:" in error(capsys)
