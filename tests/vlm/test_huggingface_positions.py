"""How positions of images are counted, held against the models' own counting."""

import pytest
import torch
from huggingface_tiny import CONFIGS, tiny_vlm

from pretzel.sequence.document import Document, Image, Text
from pretzel.sequence.packer import Packer

QWEN = ["qwen2_5_vl", "qwen3_vl"]


def test_plain_models_count_in_raster_order():
    for family in ("llama", "smolvlm", "idefics3", "llava"):
        assert tiny_vlm(family).image_index((2, 3)) == (list(range(6)), 6)


@pytest.mark.parametrize("family", QWEN)
@pytest.mark.parametrize("grid", [(2, 3), (3, 2)])
def test_positions_are_those_of_the_models_own_index(family, grid):
    vlm = tiny_vlm(family)
    packer = Packer(lambda text: [1] * len(text), vlm.special, grid, vlm.image_index(grid))
    segments = (Text(content="abc"), Image(), Text(content="de"), Image(), Text(content="f"))
    packed = packer([Document(key="", segments=segments)])
    actual = vlm._positions(packed.index, packed.positions[..., 1:])
    kinds = packed.is_image.int()
    merge = CONFIGS[family]["vision_config"].get("spatial_merge_size", 2)
    thw = torch.tensor([[1, grid[0] * merge, grid[1] * merge]] * 2)
    expected, _ = vlm.model.model.get_rope_index(
        packed.tokens, mm_token_type_ids=kinds, image_grid_thw=thw
    )
    assert torch.equal(actual, expected.to(actual))


@pytest.mark.parametrize("family", QWEN)
def test_rows_and_columns_matter(family):
    vlm = tiny_vlm(family)
    x = torch.randn(1, 6, 32, generator=torch.Generator().manual_seed(0))
    index = torch.tensor([[0, 1, 1, 1, 1, 3]])
    places = torch.tensor([[[0, 0], [0, 0], [0, 1], [1, 0], [1, 1], [0, 0]]])
    states = vlm(x, index, coordinates=places)
    swapped = vlm(x, index, coordinates=places.flip(-1))
    assert not torch.allclose(states[:, 3:], swapped[:, 3:], atol=1e-4)
    assert torch.equal(vlm(x, index, coordinates=0 * places), vlm(x, index))


def test_only_models_with_axes_read_coordinates():
    vlm = tiny_vlm("llama")
    x, index = torch.ones(1, 4, 32), torch.arange(4)[None]
    places = torch.ones(1, 4, 2, dtype=torch.long)
    assert torch.equal(vlm(x, index, coordinates=places), vlm(x, index))
