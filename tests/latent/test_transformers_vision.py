"""Features of vision transformers: real models of transformers, tiny and untrained."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    SiglipConfig,
    SiglipModel,
    SiglipTextConfig,
    SiglipVisionConfig,
    ViTMAEConfig,
    ViTMAEModel,
)

from pretzel.errors import UserError
from pretzel.latent.features import TransformersVision

SIZES = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": 16, "patch_size": 4,
}  # fmt: skip
SIGLIP_TEXT = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "vocab_size": 8,
}  # fmt: skip
MODELS = {
    "dinov2": lambda: Dinov2Model(Dinov2Config(**SIZES)),
    "registers": lambda: Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SIZES)),
    "clip": lambda: CLIPVisionModel(CLIPVisionConfig(**SIZES)),
    "siglip": lambda: SiglipModel(
        SiglipConfig(
            text_config=SiglipTextConfig(**SIGLIP_TEXT).to_dict(),
            vision_config=SiglipVisionConfig(**SIZES).to_dict(),
        )
    ),
}
OWN_TOKENS = {"dinov2": 1, "registers": 5, "clip": 1, "siglip": 0}
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    folders = {}

    def save(kind: str) -> tuple[str, torch.nn.Module]:
        if kind not in folders:
            torch.manual_seed(0)
            model = MODELS[kind]().eval()
            path = tmp_path_factory.mktemp(kind)
            model.save_pretrained(path)
            processor = {
                "image_processor_type": "BitImageProcessor",
                "image_mean": MEAN,
                "image_std": STD,
            }
            (path / "preprocessor_config.json").write_text(json.dumps(processor))
            folders[kind] = str(path), model
        return folders[kind]

    return save


@pytest.mark.parametrize("kind", MODELS)
def test_features_are_the_states_of_patches(folder, kind: str):
    path, model = folder(kind)
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    encoder = TransformersVision(path, 16, 16, 4, 16)
    assert (encoder.grid, encoder.channels) == ((4, 4), 16)
    x = ((images + 1) / 2 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    tower = getattr(model, "vision_model", model)
    with torch.no_grad():
        out = tower(pixel_values=x, output_hidden_states=True)
    own = OWN_TOKENS[kind]
    torch.testing.assert_close(encoder(images), out.last_hidden_state[:, own:])
    first = TransformersVision(path, 16, 16, 4, 16, layer=1, mean=MEAN, std=STD)
    torch.testing.assert_close(first(images), out.hidden_states[1][:, own:])
    assert first.identity != encoder.identity
    assert list(encoder.parameters()) == []
    assert encoder.identity == TransformersVision(path, 16, 16, 4, 16, mean=MEAN, std=STD).identity


def test_images_are_enlarged_to_the_size_that_it_sees(folder):
    path, _ = folder("dinov2")
    encoder = TransformersVision(path, 8, 16, 4, 16)
    small = torch.rand(1, 3, 8, 8) * 2 - 1
    large = torch.nn.functional.interpolate(small, (16, 16), mode="bilinear")
    same = TransformersVision(path, 16, 16, 4, 16)
    torch.testing.assert_close(encoder(small), same(large))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(input_size=15), "input_size must be a multiple of patch_size=4, got 15"),
        (dict(channels=0), "channels must be positive"),
        (dict(layer=0), "layer must be 1 for the first layer or more, got 0"),
        (dict(layer=3), "layer must be at most 2"),
        (dict(channels=8), "channels and patch_size must be those of"),
        (dict(patch_size=8), "channels and patch_size must be those of"),
        (dict(name="nowhere"), "name must be a hub id that can be reached"),
        (dict(std=(0.0, 1.0, 1.0)), r"std must be positive, got \[0\.0, 1\.0, 1\.0\]"),
    ],
)
def test_mistakes_are_named(folder, change: dict, message: str):
    path, _ = folder("dinov2")
    good = dict(name=path, image_size=16, input_size=16, patch_size=4, channels=16)
    with pytest.raises(UserError, match=message):
        TransformersVision(**good | change)(torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize("kind", ["dinov2", "clip", "siglip"])
def test_positions_are_interpolated_where_it_sees_another_size(folder, kind: str):
    path, _ = folder(kind)
    encoder = TransformersVision(path, 16, 24, 4, 16)
    assert encoder(torch.rand(1, 3, 16, 16)).shape == (1, 36, 16)


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def damaged(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"damaged" * 20)


def lacking(folder: Path) -> None:
    file = folder / "model.safetensors"
    state = {name: tensor for name, tensor in load_file(file).items() if "layer.1" not in name}
    save_file(state, file, {"format": "pt"})


def of_other_shapes(folder: Path) -> None:
    Dinov2Config(**SIZES | {"num_attention_heads": 4, "hidden_size": 32}).save_pretrained(folder)


def no_vision(folder: Path) -> None:
    config = BertConfig(**{k: v for k, v in SIZES.items() if k != "patch_size"}, vocab_size=8)
    BertModel(config).save_pretrained(folder)


def masks_patches(folder: Path) -> None:
    ViTMAEModel(ViTMAEConfig(**SIZES)).save_pretrained(folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_weights, r"name must be .* \(Error no file named model\.safetensors"),
        (damaged, r"name must be .* \(Error while deserializing header"),
        (lacking, r"lacks encoder\.layer\.1\.\S+ \(18 such tensors\)"),
        (of_other_shapes, r"in its shapes, but .* lacks embeddings\.cls_token"),
        (no_vision, "name must be .*, whose bert has no patches"),
        (masks_patches, "must give a vector for each of 4 x 4 patches .*, got 5 vectors"),
    ],
)
def test_a_folder_that_holds_no_such_network_is_one_sentence(
    folder, tmp_path: Path, spoil: Callable[[Path], None], message: str
):
    _, model = folder("dinov2")
    model.save_pretrained(tmp_path)
    spoil(tmp_path)
    encoder = TransformersVision(str(tmp_path), 16, 16, 4, 16, mean=MEAN, std=STD)
    state = torch.get_rng_state()
    with pytest.raises(UserError, match=message):
        encoder(torch.zeros(1, 3, 16, 16))
    if spoil is not masks_patches:  # which draws what it masks
        assert torch.equal(torch.get_rng_state(), state)


def test_colours_must_be_known(folder, tmp_path: Path):
    _, model = folder("dinov2")
    model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="mean and std must be given"):
        TransformersVision(str(tmp_path), 16, 16, 4, 16)(torch.zeros(1, 3, 16, 16))
