"""Vision towers, held against the models' own preprocessing and placing of features."""

import json

import pytest
import torch
import torch.nn.functional as F
from huggingface_tiny import CONFIGS, SEEING, save_vlm, tiny_vlm
from transformers.models.qwen2_vl.image_processing_qwen2_vl import (
    Qwen2VLImageProcessor,
    smart_resize,
)

from pretzel.errors import UserError
from pretzel.vlm.huggingface import HuggingFaceVLM
from pretzel.vlm.huggingface.families import FAMILIES, qwen_patches
from pretzel.vlm.huggingface.preprocessing import HALF, resized


def pictures(count: int, height: int = 16, width: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, height, width, generator=generator) * 2 - 1


@pytest.mark.parametrize("family", SEEING)
def test_features_are_in_raster_order(family):
    vlm = tiny_vlm(family)
    images = pictures(3)
    features, grid = vlm.encode_images(images)
    assert grid == ((4, 4) if family == "llava" else (2, 2))
    assert features.shape == (3, grid[0] * grid[1], vlm.hidden_size)
    # Towers attend globally, but a patch moves its own feature most.
    side = 16 // grid[0]
    changed = images.clone()
    changed[0, :, side:, :side] += 0.05 * torch.randn(3, 16 - side, side)
    moved = (vlm.encode_images(changed)[0] - features)[0].norm(dim=-1).view(grid)
    assert moved[1:, 0].min() > moved[0, 1:].max()


@pytest.mark.parametrize("family", SEEING)
def test_images_do_not_see_each_other(family):
    vlm = tiny_vlm(family)
    images = pictures(3)
    images[1] = 0.0  # grey all over: to SmolVLM's own code, padding
    together, _ = vlm.encode_images(images)
    assert len(together) == 3
    for i in range(3):
        torch.testing.assert_close(
            vlm.encode_images(images[i : i + 1])[0][0], together[i], rtol=0, atol=1e-5
        )


@pytest.mark.parametrize("family", SEEING)
def test_features_are_what_the_model_puts_at_image_tokens(family):
    vlm = tiny_vlm(family)
    images = pictures(1)
    features, grid = vlm.encode_images(images)
    how = vlm.preprocessing
    mean, std = (torch.tensor(colours)[:, None, None] for colours in (how.mean, how.std))
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
    elif family in ("smolvlm", "idefics3"):
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
    size = {"shortest_edge": 400, "longest_edge": 900}
    processor = Qwen2VLImageProcessor(patch_size=4, merge_size=2, size=size)
    vlm = tiny_vlm("qwen2_5_vl", min_pixels=400, max_pixels=900)
    for height, width in ((16, 28), (24, 24), (40, 28), (12, 12)):
        images = pictures(2, height, width) / 2  # where resampling exceeds no bounds
        expected = processor(images=list((images + 1) / 2), do_rescale=False, return_tensors="pt")
        prepared = vlm.family.prepare(vlm.model.config, images, vlm.preprocessing)
        patches, grid = qwen_patches(prepared, 4, 2, 2)
        assert expected["image_grid_thw"].tolist() == [[1, *grid]] * 2
        torch.testing.assert_close(patches, expected["pixel_values"], rtol=0, atol=1e-5)


def test_an_image_may_not_be_too_long():
    assert resized(13, 2600, 28, (3136, 1003520)) == smart_resize(13, 2600, 28, 3136, 1003520)
    with pytest.raises(UserError, match=r"aspect ratio.*at most 200"):
        resized(13, 2601, 28, (3136, 1003520))


def test_limits_are_the_families_own_unless_a_folder_or_a_user_has_others(tmp_path):
    own = Qwen2VLImageProcessor.size
    assert FAMILIES["qwen2_5_vl"].preprocessing.pixels == tuple(own.values())
    assert list(own) == ["shortest_edge", "longest_edge"]
    image = pictures(1, 32, 32)
    seen = {}
    for family, side in (("qwen2_5_vl", 56), ("qwen3_vl", 256)):
        vlm = HuggingFaceVLM(config=CONFIGS[family])
        size = vlm.family.prepare(vlm.model.config, image, vlm.preprocessing).shape[-2:]
        seen[family] = tuple(size)
        assert seen[family] == (side, side)
    save_vlm(tmp_path, "qwen3_vl", vision_tokens=True)
    file = tmp_path / "preprocessor_config.json"
    for content, options, expected in (
        ({"min_pixels": 100, "max_pixels": 1000}, {}, (100, 1000)),
        ({"size": {"shortest_edge": 200, "longest_edge": 2000}}, {}, (200, 2000)),
        ({"size": {"shortest_edge": 9, "longest_edge": 90}, "min_pixels": 10}, {}, (10, 90)),
        ({}, {}, (65536, 16777216)),
        ({"min_pixels": 100, "max_pixels": 1000}, {"max_pixels": 500}, (100, 500)),
    ):
        file.write_text(json.dumps(content))
        assert HuggingFaceVLM(str(tmp_path), **options).preprocessing.pixels == expected


def test_preprocessors_and_limits_that_cannot_be_are_refused(tmp_path):
    def refused(match, family="qwen3_vl", **options):
        with pytest.raises(UserError, match=match):
            tiny_vlm(family, **options)

    refused("0 < min_pixels <= max_pixels, got 0 and 4096", min_pixels=0)
    refused("0 < min_pixels <= max_pixels, got 8000 and 4096", min_pixels=8000)
    refused("images of any size, got a model of llava", "llava", max_pixels=9)
    save_vlm(tmp_path, "llava")
    for content, match in (
        ([], "must be an object"),
        ({"image_mean": [0.5]}, r"image_mean.*three numbers, got \[0.5\]"),
        ({"image_std": "x"}, "image_std.*three numbers, got 'x'"),
    ):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match=match) as caught:
            HuggingFaceVLM(str(tmp_path))
        assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(("family", "expected"), [("llava", (4, 4)), ("qwen3_vl", (2, 3))])
def test_other_sizes_are_resized(family, expected):
    features, grid = tiny_vlm(family).encode_images(pictures(1, 18, 22))
    assert grid == expected
    assert features.isfinite().all()


def test_resized_images_look_alike():
    vlm = tiny_vlm("llava")
    images = F.interpolate(pictures(1, 4, 4), size=(16, 16), mode="bicubic").clamp(-1, 1)
    larger = F.interpolate(images, size=(32, 32), mode="bicubic").clamp(-1, 1)
    small, large = vlm.encode_images(images)[0], vlm.encode_images(larger)[0]
    assert (small - large).norm() / small.norm() < 0.1


def test_colours_are_normalised_as_the_preprocessor_says(tmp_path):
    made = save_vlm(tmp_path, "llava")
    images = pictures(1)
    torch.testing.assert_close(
        HuggingFaceVLM(str(tmp_path)).encode_images(images)[0], made.encode_images(images)[0]
    )
    statistics = {"image_mean": list(HALF), "image_std": list(HALF)}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(statistics))
    loaded = HuggingFaceVLM(str(tmp_path))
    expected, _ = made.family.features(made.model, images)
    torch.testing.assert_close(loaded.encode_images(images)[0], expected)


def test_plain_language_models_do_not_see():
    with pytest.raises(UserError, match="no vision tower"):
        tiny_vlm("llama").encode_images(pictures(1))
