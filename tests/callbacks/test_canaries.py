"""Canaries: metrics that are right pass, those that are broken do not."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typing_extensions import override
from world import known_samples

from callbacks import (
    FID,
    KID,
    MMD,
    DensityCoverage,
    PooledPixels,
    PrecisionRecall,
    ReferenceMetric,
    ShapeAccuracy,
)
from callbacks.canaries import image_canaries, question_canaries
from callbacks.distance_canaries import _Features, _Halves
from callbacks.feature_metrics.base import FeatureMetric
from callbacks.feature_metrics.feature_rows import FeatureRows
from callbacks.feature_metrics.frechet import Moments
from callbacks.feature_metrics.kernels import squared_mmd
from callbacks.feature_metrics.kid import _cubic
from callbacks.generation_metric import GenerationMetric
from pretzel.__main__ import main
from pretzel.errors import NothingToMeasure

CPU = torch.device("cpu")
PIXELS = PooledPixels(2)


def failures(metric: GenerationMetric) -> set[str]:
    found = image_canaries([metric], known_samples(), CPU, num_resamplings=99)
    assert found
    return {one.check for one in found if not one.passed}


def test_right_metrics_pass() -> None:
    kid = KID(PIXELS, subsets=5, subset_size=12)
    for metric in (FID(PIXELS), kid, MMD(PIXELS), PrecisionRecall(PIXELS), DensityCoverage(PIXELS)):
        assert failures(metric) == set(), metric.name
    assert failures(ShapeAccuracy()) == set()


class Forgetful(FID):
    """Adds what it measured before."""

    times = 0

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


class Clipped(FID):
    """Clips the darkest hundredth of generated images alone."""

    @override
    def update(self, images: Tensor, prompts: Sequence[str]) -> None:
        super().update(images.clamp(min=float(images.quantile(0.01)) + 0.1), prompts)


class Sloppy(FID):
    """Divides covariances by n."""

    @override
    def measure(self, generated: Moments, real: Moments) -> list[float]:
        n = len(real)
        for moments in (generated, real):
            moments._scatter = moments._scatter * ((n - 1) / n)
        return super().measure(generated, real)


class BiasedKID(KID):
    """Counts the pairs of an image with itself."""

    @override
    def measure(self, generated: FeatureRows, real: FeatureRows) -> list[float]:
        rows = generated.rows, real.rows
        return [squared_mmd(*rows, _cubic, unbiased=False, device=CPU), 0.0]


class Unscaled(MMD):
    """Forgets to make features of norm 1."""

    @override
    def measure(self, generated: FeatureRows, real: FeatureRows) -> list[float]:
        def kernel(a: Tensor, b: Tensor) -> Tensor:
            return torch.expm1(-torch.cdist(a, b).square() / (2 * self.sigma**2))

        rows = generated.rows, real.rows
        return [1000 * squared_mmd(*rows, kernel, unbiased=False, device=CPU)]


class Dense(DensityCoverage):
    """Takes the next neighbour's ball."""

    @override
    def measure(self, generated: FeatureRows, real: FeatureRows) -> list[float]:
        self.neighbours = 6
        density, coverage = super().measure(generated, real)
        return [density * 6 / 5, coverage]


class DeafToCaptions(ShapeAccuracy):
    """Judges every image by the first caption it ever saw for that place."""

    texts: Sequence[str] = ()

    @override
    def update(self, images: Tensor, prompts: Sequence[str]) -> None:
        self.texts = self.texts or prompts
        super().update(images, self.texts)


AS_OTHERS, FAR = "real against real, 12 and 12", "noise against real, 12 and 12"
BY_FEATURES, MEAN = "the same halves by features, computed once", "mean of the 99 other halves"
ANOTHER = "the same halves by another equation, of singular values"


@pytest.mark.parametrize(
    ("metric", "caught"),
    [
        (Forgetful(PIXELS), {AS_OTHERS, BY_FEATURES}),
        (Blurred(PIXELS), {AS_OTHERS, FAR, BY_FEATURES}),
        (Clipped(PIXELS), {BY_FEATURES}),
        (Sloppy(PIXELS), {ANOTHER}),
        (BiasedKID(PIXELS, subset_size=12), {MEAN}),
        (Unscaled(PIXELS), {MEAN}),
        (Dense(PIXELS), {MEAN}),
    ],
    ids=lambda one: type(one).__name__,
)
def test_broken_metrics_do_not(metric: FeatureMetric, caught: set[str]) -> None:
    assert failures(metric) == caught


def test_a_metric_that_is_deaf_to_captions_does_not() -> None:
    assert failures(DeafToCaptions()) == {"real images, captions shuffled"}
    with pytest.raises(NothingToMeasure, match="at least 4 real images, got 3"):
        image_canaries([ShapeAccuracy()], known_samples()[:3], CPU)


class Brightness(ReferenceMetric):
    """A metric without features: how much brighter real images are."""

    name = "brightness"

    def prepare(self, device: torch.device) -> None:
        pass

    def describe(self) -> str:
        return "brightness"

    def reset(self) -> None:
        self.own: list[Tensor] = []

    def reset_real(self) -> None:
        self.real: list[Tensor] = []

    def update(self, images: Tensor, prompts: Sequence[str]) -> None:
        self.own.append(images)

    def update_real(self, images: Tensor) -> None:
        self.real.append(images)

    def compute(self) -> dict[str, float]:
        gap = torch.cat(self.real).mean() - torch.cat(self.own).mean()
        return {"brightness": float(gap.abs())}


def test_a_metric_without_features_is_compared_by_images() -> None:
    found = image_canaries([Brightness()], known_samples(), CPU)
    assert [one.passed for one in found] == [True, True]
    assert "within 39 other halves" in found[0].expected
    assert "false alarm: 1 in 20" in found[0].expected


def test_a_right_metric_is_outside_as_rarely_as_is_said() -> None:
    """A cut is the lowest or highest of ten with probability 1 / 5."""
    images, metric = torch.stack([one.image for one in known_samples()]), FID(PooledPixels(2))
    halves, features = _Halves(metric, images), _Features(metric, images)
    values = torch.tensor([features.measure(*halves.cut(n)) for n in range(1000)]).reshape(100, 10)
    others = values[:, 1:]
    outside = (values[:, 0] < others.amin(1)) | (values[:, 0] > others.amax(1))
    assert 0.08 < float(outside.double().mean()) < 0.32


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
    assert (
        main(["metrics", "canary", "-c", str(config), "--num-images", "60", "--resamplings", "19"])
        == 0
    )
    printed = capsys.readouterr().out
    for text in (
        "fid_pixels2",
        "within 19 other halves",
        "captions shuffled",
        "vqa_blind_exact",
        "pass",
    ):
        assert text in printed
    assert "FAIL" not in printed
    assert main(["metrics", "canary", "--num-images", "0"]) == 2
    assert main(["metrics", "canary", "--resamplings", "0"]) == 2
