"""Vision towers, held against the models' own preprocessing and placing of features."""

import json

import pytest
import torch
import torch.nn.functional as F
from huggingface_tiny import SEEING, save_vlm, tiny_vlm
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

from pretzel.errors import UserError
from pretzel.vlm.huggingface.families import CLIP_MEAN, CLIP_STD, HALF, qwen_patches


def pictures(count: int, height: int = 16, width: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, height, width, generator=generator) * 2 - 1


@pytest.mark.parametrize("family", SEEING)
def test_features_are_in_raster_order(family):
    vlm = tiny_vlm(family)
    images = pictures(3)
    features, grid = vlm.see(images)
    assert grid == ((4, 4) if family == "llava" else (2, 2))
    assert features.shape == (3, grid[0] * grid[1], vlm.hidden_size)
    # Towers attend globally, but a patch moves its own feature most.
    side = 16 // grid[0]
    changed = images.clone()
    changed[0, :, side:, :side] += 0.05 * torch.randn(3, 16 - side, side)
    moved = (vlm.see(changed)[0] - features)[0].norm(dim=-1).view(grid)
    assert moved[1:, 0].min() > moved[0, 1:].max()


@pytest.mark.parametrize("family", SEEING)
def test_images_do_not_see_each_other(family):
    vlm = tiny_vlm(family)
    images = pictures(3)
    images[1] = 0.0  # grey all over: to SmolVLM's own code, padding
    together, _ = vlm.see(images)
    assert len(together) == 3
    for i in range(3):
        torch.testing.assert_close(vlm.see(images[i : i + 1])[0][0], together[i], rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", SEEING)
def test_features_are_what_the_model_puts_at_image_tokens(family):
    vlm = tiny_vlm(family)
    images = pictures(1)
    features, grid = vlm.see(images)
    mean, std = (torch.tensor(c)[:, None, None] for c in (vlm.family.mean, vlm.family.std))
    pixels = ((images + 1) / 2 - mean) / std
    vlm.model.config.image_token_id = 60
    n = grid[0] * grid[1]
    tokens = torch.tensor([[5, *[60] * n, 7]])
    inputs = {"pixel_values": pixels}
    if vlm.family.counts_axes:
        patches, (rows, columns) = qwen_patches(pixels, 4, 2, 2)
        kinds = (tokens == 60).int()
        inputs = {
            "pixel_values": patches,
            "image_grid_thw": torch.tensor([[1, rows, columns]]),
            "mm_token_type_ids": kinds,
        }
    elif family == "smolvlm":
        inputs = {"pixel_values": pixels[None]}
    given = []
    hook = vlm.decoder_layers()[0].register_forward_pre_hook(
        lambda module, args: given.append(args[0])
    )
    with torch.no_grad():
        vlm.model(input_ids=tokens, use_cache=False, **inputs)
    hook.remove()
    torch.testing.assert_close(features, given[0][:, 1:-1], rtol=0, atol=1e-5)


def test_patches_are_those_of_the_preprocessor():
    size = {"shortest_edge": 1, "longest_edge": 10**6}
    processor = Qwen2VLImageProcessor(patch_size=4, merge_size=2, size=size)
    images = pictures(2, 16, 24)
    expected = processor(images=list((images + 1) / 2), do_rescale=False, return_tensors="pt")
    vlm = tiny_vlm("qwen2_5_vl")
    prepared = vlm.family.prepare(vlm.model.config, images, CLIP_MEAN, CLIP_STD)
    patches, grid = qwen_patches(prepared, 4, 2, 2)
    assert expected["image_grid_thw"].tolist() == [[1, *grid]] * 2
    torch.testing.assert_close(patches, expected["pixel_values"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("family", "expected"), [("llava", (4, 4)), ("qwen3_vl", (2, 3))])
def test_other_sizes_are_resized(family, expected):
    features, grid = tiny_vlm(family).see(pictures(1, 18, 22))
    assert grid == expected
    assert features.isfinite().all()


def test_resized_images_look_alike():
    vlm = tiny_vlm("llava")
    images = F.interpolate(pictures(1, 4, 4), size=(16, 16), mode="bicubic").clamp(-1, 1)
    larger = F.interpolate(images, size=(32, 32), mode="bicubic").clamp(-1, 1)
    small, large = vlm.see(images)[0], vlm.see(larger)[0]
    assert (small - large).norm() / small.norm() < 0.1


def test_colours_are_normalised_as_the_preprocessor_says(tmp_path):
    made = save_vlm(tmp_path, "llava")
    from pretzel.vlm.huggingface import HuggingFaceVLM

    images = pictures(1)
    torch.testing.assert_close(HuggingFaceVLM(str(tmp_path)).see(images)[0], made.see(images)[0])
    statistics = {"image_mean": list(HALF), "image_std": list(HALF)}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(statistics))
    loaded = HuggingFaceVLM(str(tmp_path))
    expected, _ = made.family.features(made.model, images)
    torch.testing.assert_close(loaded.see(images)[0], expected)


def test_plain_language_models_do_not_see():
    with pytest.raises(UserError, match="no vision tower"):
        tiny_vlm("llama").see(pictures(1))
