"""The judge and the count of shapes, on images of known content."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad
from world import draw

from callbacks import ShapeAccuracy
from callbacks.easy_vqa.judge import (
    COLOURS,
    SHAPES,
    Judge,
    load_judge,
    read_caption,
    to_judge_size,
)
from callbacks.easy_vqa.shape_accuracy import count_shapes
from datamodules import EasyVQA
from pretzel.errors import UserError
from pretzel.files.weights import save_half

ALL = [(colour, shape) for colour in COLOURS for shape in SHAPES]


@pytest.fixture(scope="module")
def real() -> dict[str, tuple[Tensor, list[str]]]:
    """Real test images with their captions, at both sizes."""

    def load(size: int) -> tuple[Tensor, list[str]]:
        samples = list(EasyVQA().samples("test", size))
        return torch.stack([s.image for s in samples]), [s.caption for s in samples]

    return {"32": load(32), "64": load(64)}


@pytest.fixture
def metric() -> Iterator[ShapeAccuracy]:
    built = ShapeAccuracy()
    built.prepare(torch.device("cpu"))
    return built


@pytest.mark.parametrize("size", ["32", "64"])
def test_real_test_images_are_right_and_hold_one_shape(
    metric: ShapeAccuracy, real: dict[str, tuple[Tensor, list[str]]], size: str
) -> None:
    images, captions = real[size]
    full = [i for i, caption in enumerate(captions) if metric.accepts(caption)]
    assert len(full) == 888
    full = full if size == "32" else full[:200]
    with torch.inference_mode():
        metric.update(images[full], [captions[i] for i in full])
    values = metric.compute()
    assert values["right"] >= 0.998
    assert values["one_shape"] == 1
    assert values["shape_n"] == len(full)


@pytest.mark.parametrize("size", ["32", "64"])
def test_every_real_image_holds_one_shape(
    real: dict[str, tuple[Tensor, list[str]]], size: str
) -> None:
    assert count_shapes(real[size][0]) == [1] * 1000


def test_a_little_blur_and_noise_does_not_mislead_the_judge(
    metric: ShapeAccuracy, real: dict[str, tuple[Tensor, list[str]]]
) -> None:
    images, captions = real["32"]
    full = [i for i, caption in enumerate(captions) if metric.accepts(caption)][:150]
    soft = avg_pool2d(pad(images[full], (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    noisy = images[full] + 0.1 * torch.randn(
        images[full].shape, generator=torch.Generator().manual_seed(0)
    )
    for changed in (soft, noisy):
        metric.reset()
        metric.update(changed, [captions[i] for i in full])
        assert metric.compute()["right"] > 0.97


def test_wrong_colour_and_wrong_shape_are_counted_apart(metric: ShapeAccuracy) -> None:
    images = torch.stack([draw("red", "circle")] * 4)
    prompts = ["a red circle", "a blue circle", "a red triangle", "a blue triangle"]
    metric.update(images, prompts)
    assert metric.compute() == {
        "right": 0.25,
        "right_colour": 0.5,
        "right_shape": 0.5,
        "one_shape": 1.0,
        "right_and_one_shape": 0.25,
        "shape_n": 4,
    }


def test_right_but_torn_shapes_pass_only_the_first_test(metric: ShapeAccuracy) -> None:
    whole = draw("blue", "rectangle")
    torn = whole.clone()
    torn[:, :, 15:18] = torn[:, :1, :1]
    metric.update(torch.stack([whole, torn]), ["a blue rectangle"] * 2)
    values = metric.compute()
    assert values["one_shape"] == values["right_and_one_shape"] == 0.5
    assert values["right_colour"] == 1


def test_noise_and_emptiness_are_no_shapes() -> None:
    noise = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    faint = 0.9 + noise.clamp(max=0) * (noise < -0.9)
    empty = torch.full((1, 3, 32, 32), 0.9)
    assert 1 not in count_shapes(noise)
    assert 1 not in count_shapes(faint)
    assert count_shapes(empty) == [0]


@pytest.mark.parametrize("size", [32, 64])
def test_speckles_are_ignored_but_a_second_small_shape_is_not(size: int) -> None:
    image = draw("teal", "circle", size)
    scale = size // 32
    speckle, second = image.clone(), image.clone()
    speckle[:, 0 : 1 * scale, 0 : 3 * scale] = -1  # 3 of 32x32 pixels
    second[:, 0 : 2 * scale, 0 : 2 * scale] = -1  # 4 of 32x32 pixels
    diagonal = torch.full((3, 4, 4), 1.0)
    diagonal[:, 0, 0] = diagonal[:, 1, 1] = -1
    assert count_shapes(torch.stack([image, speckle, second])) == [1, 1, 2]
    assert count_shapes(diagonal[None]) == [1]


def test_reset_forgets(metric: ShapeAccuracy) -> None:
    metric.update(draw("red", "circle")[None], ["a blue triangle"])
    metric.reset()
    assert metric.compute() == {"shape_n": 0}


@pytest.mark.parametrize(
    ("caption", "accepted"),
    [
        ("a red circle", True),
        ("A Teal Triangle.", True),
        ("a red shape", False),
        ("a circle", False),
        ("a red or blue circle", False),
        ("a reddish circle", False),
        ("", False),
    ],
)
def test_only_complete_captions_are_judged(
    metric: ShapeAccuracy, caption: str, accepted: bool
) -> None:
    assert metric.accepts(caption) == accepted


def test_captions_are_read_word_by_word() -> None:
    for colour, shape in ALL:
        assert read_caption(f"a {colour} {shape}") == (colour, shape)


def test_judge_sees_areas_not_points() -> None:
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(to_judge_size(image), avg_pool2d(image, 2), atol=1e-6)
    assert to_judge_size(interpolate(image, (16, 16))).shape == (1, 3, 32, 32)


def test_shipped_judge_is_small_frozen_and_hashed(tmp_path: Path) -> None:
    judge = load_judge()
    assert not judge.training
    assert not any(parameter.requires_grad for parameter in judge.parameters())
    path = tmp_path / "judge.safetensors"
    save_half(judge.state_dict(), path)
    assert path.stat().st_size < 400_000
    again = load_judge(path)
    state = again.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in judge.state_dict().items())

    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(UserError, match=r"has sha256 .* but judge.safetensors.sha256 says"):
        load_judge(path)
    with pytest.raises(UserError, match=r"no file .*nowhere.safetensors"):
        load_judge(tmp_path / "nowhere.safetensors")


def test_judge_width_is_that_of_its_features() -> None:
    judge = Judge(width=8)
    assert judge.features(torch.zeros(2, 3, 40, 33)).shape == (2, judge.colour.in_features)
