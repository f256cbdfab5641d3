"""FID and KID agree with closed forms, and carry the name of what computed them."""

import hashlib
from itertools import islice
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor, nn
from torch_fidelity import feature_extractor_inceptionv3 as fidelity

import callbacks.feature_extractors
from callbacks import FID, KID, Inception, JudgeFeatures, ModuleFeatures
from callbacks.generation_metric import ReferenceMetric
from datamodules import EasyVQA
from pretzel.errors import UserError
from pretzel.media.integers import to_integers

CPU = torch.device("cpu")


class Corner(nn.Module):
    """Its features are the first pixels of the first row: what we put there."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, images: Tensor) -> Tensor:
        return images[:, 0, 0, : self.width]


def images_with(features: Tensor) -> Tensor:
    images = torch.zeros(len(features), 3, 1, features.shape[1])
    images[:, 0, 0] = features
    return images


def measure(metric: ReferenceMetric, real: Tensor, generated: Tensor) -> dict[str, float]:
    metric.prepare(CPU)
    with torch.inference_mode():
        metric.reset_real()
        metric.reset()
        for part in real.split(300):
            metric.update_real(part)
        for part in generated.split(300):
            metric.update(part, [""] * len(part))
        return metric.compute()


def normal(n: int, width: int, seed: int) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def test_fid_of_gaussians_is_the_closed_form() -> None:
    mixing = torch.tensor([[1.0, 0, 0], [0.5, 2, 0], [0, -0.3, 0.7]])
    shift = torch.tensor([1.0, -2, 0.5])
    real, generated = normal(4000, 3, 0), normal(4000, 3, 1) @ mixing.T + shift
    values = measure(
        FID(ModuleFeatures(Corner(3), "corner")), images_with(real), images_with(generated)
    )

    def closed(m: np.ndarray, c: np.ndarray) -> float:
        return float(m @ m + np.trace(np.eye(3) + c - 2 * sqrtm(c)).real)

    assert values["fid_corner"] == pytest.approx(
        closed(shift.numpy(), (mixing @ mixing.T).numpy()), rel=0.05
    )
    means = real.double().mean(0) - generated.double().mean(0)
    a, b = torch.cov(real.double().T).numpy(), torch.cov(generated.double().T).numpy()
    exact = float(means @ means) + np.trace(a + b - 2 * sqrtm(a @ b)).real
    assert values["fid_corner"] == pytest.approx(exact, rel=1e-5)
    assert values["fid_corner_n"] == values["fid_corner_n_real"] == 4000


def test_fid_of_equal_distributions_is_its_known_bias() -> None:
    metric = FID(ModuleFeatures(Corner(64), "corner"))
    actual = {
        n: measure(metric, images_with(normal(n, 64, 2)), images_with(normal(n, 64, 3)))
        for n in (8, 1000)
    }
    assert actual[1000]["fid_corner"] == pytest.approx(2.2, abs=0.2)
    assert actual[8]["fid_corner"] > 50
    same = images_with(normal(500, 8, 4))
    zero = measure(FID(ModuleFeatures(Corner(8), "corner")), same, same)
    assert zero["fid_corner"] == pytest.approx(0, abs=1e-4)


def test_kid_over_whole_sets_is_the_unbiased_mmd() -> None:
    real, generated = normal(60, 4, 5), normal(60, 4, 6) + 0.5
    metric = KID(ModuleFeatures(Corner(4), "corner"), subsets=3, subset_size=60)
    values = measure(metric, images_with(real), images_with(generated))

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / 4 + 1) ** 3

    def off_diagonal(k: Tensor) -> float:
        return float((k.sum() - k.diagonal().sum()) / (60 * 59))

    x, y = real.double(), generated.double()
    expected = off_diagonal(kernel(x, x)) + off_diagonal(kernel(y, y))
    expected -= 2 * float(kernel(x, y).mean())
    assert values["kid_corner"] == pytest.approx(expected, rel=1e-4)
    assert values["kid_corner_std"] == pytest.approx(0, abs=1e-5)
    assert values["kid_corner_n"] == values["kid_corner_n_real"] == 60


def test_kid_of_equal_distributions_is_near_zero_and_moves_no_global_state() -> None:
    metric = KID(ModuleFeatures(Corner(4), "corner"), subsets=30, subset_size=100)
    state = torch.get_rng_state()
    values = measure(metric, images_with(normal(500, 4, 7)), images_with(normal(500, 4, 8)))
    assert torch.equal(state, torch.get_rng_state())
    assert abs(values["kid_corner"]) < values["kid_corner_std"]
    assert metric.compute() == values


@pytest.mark.parametrize("kind", [FID, KID])
def test_canaries_on_real_images(kind: type[FID] | type[KID]) -> None:
    real = torch.stack([s.image for s in islice(EasyVQA().samples("test", 32), 500)])
    noise = torch.rand(250, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    metric = kind(JudgeFeatures())
    same = measure(metric, real[:250], real[250:])[metric.name]
    far = measure(metric, real[:250], noise)[metric.name]
    assert metric.name in {"fid_judge", "kid_judge"}
    assert far > 50 * abs(same)


@pytest.mark.parametrize("kind", [FID, KID])
def test_real_features_stay_until_they_are_reset(kind: type[FID] | type[KID]) -> None:
    metric = kind(ModuleFeatures(Corner(4), "corner"))
    real, generated = images_with(normal(200, 4, 9)), images_with(normal(200, 4, 10))
    first = measure(metric, real, generated)
    metric.reset()
    metric.update(generated[:150], [""] * 150)
    assert metric.compute()[f"{metric.name}_n"] == 150
    assert metric.compute()[f"{metric.name}_n_real"] == 200
    metric.reset()
    metric.update(generated, [""] * 200)
    assert metric.compute() == first
    metric.reset_real()
    with pytest.raises(UserError):
        metric.compute()


def test_name_says_which_extractor() -> None:
    assert FID(Inception()).name == "fid"
    assert KID(Inception()).name == "kid"
    assert FID(ModuleFeatures(Corner(2), "effnet-lite0")).name == "fid_effnet-lite0"
    for name in ("", "Inception V3", "a/b"):
        with pytest.raises(UserError, match="name must consist of lower-case letters"):
            ModuleFeatures(Corner(2), name)


def test_description_changes_with_the_weights() -> None:
    a, b = nn.Linear(3, 2), nn.Linear(3, 2)
    same = ModuleFeatures(a, "x").describe()
    assert same == ModuleFeatures(a, "x").describe() != ModuleFeatures(b, "x").describe()


def test_too_few_images_are_a_clear_mistake() -> None:
    features = images_with(normal(5, 4, 11))
    with pytest.raises(UserError, match="needs at least 2 generated and 2 real images, got 1 and"):
        measure(FID(ModuleFeatures(Corner(4), "corner")), features, features[:1])
    with pytest.raises(UserError, match=r"subset_size 100 must not exceed .* generated \(5\)"):
        measure(KID(ModuleFeatures(Corner(4), "corner")), features, features)
    with pytest.raises(UserError, match="subset_size must be at least 2, got 1"):
        KID(JudgeFeatures(), subset_size=1)
    with pytest.raises(UserError, match=r"one vector an image, got shape \(1, 3, 1, 4\)"):
        measure(FID(ModuleFeatures(nn.Identity(), "all")), features, features)


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
        network = fidelity.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    path = tmp_path / "weights.pth"
    torch.save(network.state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    monkeypatch.setattr(callbacks.feature_extractors, "INCEPTION_SHA256", digest)

    extractor = Inception(str(path))
    extractor.prepare()
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        features = extractor(images)
        assert torch.equal(features, network(to_integers(images))[0])
    assert features.shape == (1, 2048)
