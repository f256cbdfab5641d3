"""Canaries: metrics that are right pass, those that are broken do not."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typing_extensions import override
from world import known_samples

from callbacks import FID, KID, MMD, DensityCoverage, PooledPixels, PrecisionRecall, ShapeAccuracy
from callbacks.canaries import image_canaries, question_canaries
from callbacks.generation_metric import GenerationMetric
from pretzel.__main__ import main
from pretzel.errors import NothingToMeasure

CPU = torch.device("cpu")


def failures(metric: GenerationMetric) -> set[str]:
    found = image_canaries([metric], known_samples(), CPU)
    assert found
    return {one.check for one in found if not one.passed}


def test_right_metrics_pass() -> None:
    pixels = PooledPixels(2)
    kid = KID(pixels, subsets=5, subset_size=12)
    for metric in (FID(pixels), kid, MMD(pixels), PrecisionRecall(pixels), DensityCoverage(pixels)):
        assert failures(metric) == set(), metric.name
    assert failures(ShapeAccuracy()) == set()


class Forgetful(FID):
    """Adds what it measured before."""

    def __init__(self) -> None:
        super().__init__(PooledPixels(2))
        self.times = 0

    @override
    def compute(self) -> dict[str, float]:
        self.times += 1
        return {name: value + 10 * self.times for name, value in super().compute().items()}


class Blurred(FID):
    """Sees the size of images, and no more."""

    @override
    def update(self, images: Tensor, prompts: Sequence[str]) -> None:
        super().update(self.shown, prompts)

    @override
    def update_real(self, images: Tensor) -> None:
        self.shown = images + 0.01 * images.roll(1, 0)
        super().update_real(images)


class DeafToCaptions(ShapeAccuracy):
    """Judges every image by the first caption it ever saw for that place."""

    texts: Sequence[str] = ()

    @override
    def update(self, images: Tensor, prompts: Sequence[str]) -> None:
        self.texts = self.texts or prompts
        super().update(images, self.texts)


def test_broken_metrics_do_not() -> None:
    assert failures(Forgetful()) == {"noise against real, 12 and 12"}  # for it all are far
    assert failures(Blurred(PooledPixels(2))) == {"noise against real, 12 and 12"}
    assert failures(DeafToCaptions()) == {"real images, captions shuffled"}
    with pytest.raises(NothingToMeasure, match="at least 4 real images, got 3"):
        image_canaries([ShapeAccuracy()], known_samples()[:3], CPU)


def test_answers_without_images_are_as_good_as_their_frequency() -> None:
    samples = known_samples()
    training = [pair for sample in samples for pair in sample.questions]
    majority, truth, blind = question_canaries(training, samples)
    assert majority.value == pytest.approx(16 / 72)  # no circle in 16 of 24 images
    assert truth.value == 1
    # 16 of 24, and of eight colours and three shapes the most frequent ones
    assert blind.value == pytest.approx((16 + 3 + 8) / 72)
    assert all(one.passed for one in (majority, truth, blind))
    assert question_canaries([], samples) == []


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "few.yaml"
    config.write_text(
        """
data:
  class_path: datamodules.WebDatasetDataModule
  init_args:
    source: {class_path: datamodules.EasyVQA}
    recipe: {class_path: datamodules.Captions}
    image_size: 32
    batch_size: 4
    steps_per_epoch: 1
trainer:
  callbacks:
    - class_path: callbacks.NonFiniteGuard
    - class_path: callbacks.Generation
      init_args:
        metrics:
          - class_path: callbacks.ShapeAccuracy
          - class_path: callbacks.FID
            init_args: {extractor: {class_path: callbacks.PooledPixels, init_args: {size: 2}}}
"""
    )
    assert main(["metrics", "canary", "-c", str(config), "--num-images", "60"]) == 0
    printed = capsys.readouterr().out
    for text in ("fid_pixels2", "captions shuffled", "vqa_blind_exact", "pass"):
        assert text in printed
    assert "FAIL" not in printed
    assert main(["metrics", "canary", "--num-images", "0"]) == 2
