"""The latent space of the paper: its stages train in small, and name what the others read."""

from pathlib import Path

import pytest
import torch
import torchvision
import yaml
from test_configs import PAPER, content, overlay, overlays_in_comments, part
from transformers import Dinov2Config, Dinov2Model

from pretzel.__main__ import main
from pretzel.latent import FAE
from pretzel.runs.cli import ParseOnlyCLI
from pretzel.runs.config.overlay import fold, read

FEATURES, PIXELS, MODEL = (
    next(path for path in PAPER if path.stem == stem)
    for stem in ("fae_features", "fae_pixels", "starflow2")
)


def test_the_stages_and_the_model_that_reads_them_agree(tmp_path: Path):
    weights, _ = overlays_in_comments(MODEL)
    (tmp_path / "weights.yaml").write_text(weights)
    config = fold([read(MODEL), read(tmp_path / "weights.yaml")])
    latent = part(config.values["model"], "pretzel", "latent")["init_args"]
    first, second = (content(path)["model"]["init_args"] for path in (FEATURES, PIXELS))
    assert latent["weights"] == second["export_to"]
    assert second["features"] == first["export_to"]
    network = first["network"]["init_args"] | {"pixel_decoder": second["pixel_decoder"]}
    assert latent["network"]["init_args"] == network
    ParseOnlyCLI().parse("fit", fold([read(PIXELS)]))


@pytest.fixture
def networks(tmp_path: Path) -> dict[str, str]:
    """Small untrained networks of the kinds of DINOv2 and of LPIPS."""
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, use_swiglu_ffn=True)
    Dinov2Model(Dinov2Config(**sizes, image_size=56, patch_size=14)).save_pretrained(
        tmp_path / "dinov2"
    )
    convolutions = torchvision.models.alexnet(weights=None).features.state_dict()
    state = {f"features.{name}": tensor for name, tensor in convolutions.items()}
    torch.save(state, tmp_path / "alexnet.pth")
    return {"dinov2": str(tmp_path / "dinov2"), "alexnet": str(tmp_path / "alexnet.pth")}


def test_the_stages_train_when_shrunk(networks: dict[str, str], tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = (content(path)["model"]["init_args"] for path in (FEATURES, PIXELS))
    encoder = {"name": networks["dinov2"], "image_size": 64, "input_size": 56, "channels": 32}
    parts = {
        "encoder": encoder,
        "bottleneck": {"head_dim": 16},
        "feature_decoder": {"width": 32, "num_layers": 1, "head_dim": 16},
    }
    network = {"init_args": {name: {"init_args": sizes} for name, sizes in parts.items()}}
    losses = second["losses"]
    losses[1]["init_args"] |= {"net": "alex", "weights": networks["alexnet"]}
    losses[2]["init_args"]["width"] = 8
    pixel_decoder = {"init_args": {"width": 32, "num_layers": 1, "head_dim": 16}}
    changes = {
        FEATURES: {"network": network},
        PIXELS: {"pixel_decoder": pixel_decoder, "losses": losses},
    }
    own = {"source": {"class_path": "datamodules.EasyVQA"}, "image_size": 64, "num_workers": 0}
    for path, arguments in changes.items():
        config = content(path)
        for callback in config["trainer"]["callbacks"]:
            if callback["class_path"] == "callbacks.Reconstructions":  # the Inception is elsewhere
                callback["init_args"] = {"num_images": 4, "num_shown": 4}
        small = {
            "model": {"init_args": arguments},
            "data": {"init_args": own},
            "trainer": {"precision": "32-true"},
        }
        (tmp_path / "own.yaml").write_text(yaml.safe_dump(small))
        files = (path, overlay(config, tmp_path), tmp_path / "own.yaml")
        assert main(["fit", *(word for file in files for word in ("-c", str(file)))]) == 0
    latent = FAE(noise=0.3, weights=second["export_to"])
    assert (latent.grid, latent.channels, latent.image_size) == ((4, 4), 32, 64)
    assert first["export_to"] != second["export_to"]
    assert list(tmp_path.rglob("reconstructions/*.png"))
