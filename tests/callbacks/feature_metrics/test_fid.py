"""FID is the closed form, whatever the shape of the covariances, and says when it means little."""

import logging

import numpy as np
import pytest
import torch
from known_features import corner, measure_features, normal
from scipy.linalg import sqrtm
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torchmetrics.image.fid import FrechetInceptionDistance

from callbacks import FID, Inception
from callbacks.feature_metrics.frechet import Moments
from pretzel.errors import NothingToMeasure


def exact(real: Tensor, generated: Tensor) -> float:
    means = real.double().mean(0) - generated.double().mean(0)
    a, b = torch.cov(real.double().T).numpy(), torch.cov(generated.double().T).numpy()
    return float(means @ means) + float(np.trace(a + b - 2 * sqrtm(a @ b)).real)


def fid(real: Tensor, generated: Tensor) -> float:
    return measure_features(FID(corner(real.shape[1])), real, generated)["fid_corner"]


def test_fid_of_gaussians_is_the_closed_form() -> None:
    mixing = torch.tensor([[1.0, 0, 0], [0.5, 2, 0], [0, -0.3, 0.7]])
    shift = torch.tensor([1.0, -2, 0.5])
    real, generated = normal(4000, 3, 0), normal(4000, 3, 1) @ mixing.T + shift
    values = measure_features(FID(corner(3)), real, generated)
    covariance = (mixing @ mixing.T).numpy()
    closed = float(shift @ shift) + np.trace(np.eye(3) + covariance - 2 * sqrtm(covariance)).real
    assert values["fid_corner"] == pytest.approx(closed, rel=0.05)
    assert values["fid_corner"] == pytest.approx(exact(real, generated), rel=1e-9)
    assert values["fid_corner_n"] == values["fid_corner_n_real"] == 4000


def test_it_agrees_with_torchmetrics_and_torch_fidelity() -> None:
    real, generated = normal(300, 24, 0), normal(250, 24, 1) * 1.3 + 5
    reference = FrechetInceptionDistance(corner(24), normalize=True)
    reference.inception.num_features = 24
    statistics = [fid_features_to_statistics(x) for x in (real, generated)]
    fidelity = fid_statistics_to_metric(*statistics, verbose=False)
    for features, is_real in ((real, True), (generated, False)):
        images = torch.zeros(len(features), 3, 1, 24)
        images[:, 0, 0] = features
        reference.update(images, real=is_real)
    actual = fid(real, generated)
    assert actual == pytest.approx(float(reference.compute()), rel=1e-5)
    assert actual == pytest.approx(fidelity["frechet_inception_distance"], rel=1e-5)


@pytest.mark.parametrize("n", [10, 33])
def test_singular_covariances_are_as_good(n: int) -> None:
    flat = normal(3, 32, 2)
    real, generated = normal(n, 32, 0), normal(50, 3, 1) @ flat
    assert fid(real, generated) == pytest.approx(exact(real, generated), rel=1e-5)
    assert fid(generated, real) == pytest.approx(fid(real, generated), rel=1e-5)
    assert fid(generated, generated) == pytest.approx(0, abs=1e-5)


def test_moments_lose_no_digits_far_from_zero() -> None:
    features = normal(500, 4, 3).double() + 1e6
    moments = Moments()
    for part in features.split(7):
        moments.add(part)
    torch.testing.assert_close(moments.mean, features.mean(0), rtol=1e-15, atol=0)
    torch.testing.assert_close(moments.covariance, torch.cov(features.T), rtol=1e-9, atol=1e-9)


def test_fid_of_equal_distributions_is_its_known_bias() -> None:
    actual = {n: fid(normal(n, 64, 2), normal(n, 64, 3)) for n in (8, 1000)}
    assert actual[1000] == pytest.approx(2.2, abs=0.2)
    assert actual[8] > 50


def test_name_says_which_extractor() -> None:
    assert FID(Inception()).name == "fid"
    assert FID().name == "fid_efflite0"
    assert FID().extractor is FID().extractor  # features of a batch are computed once


def test_fewer_images_than_features_are_explained_once(caplog: pytest.LogCaptureFixture) -> None:
    metric = FID(corner(6))
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            measure_features(metric, normal(7, 6, 0), normal(6, 6, 1))
        measure_features(FID(corner(6)), normal(7, 6, 0), normal(7, 6, 1))
    (message,) = [x for x in caplog.messages if "fid_corner" in x]
    assert "6 generated and 7 real images do not determine a covariance of 6 features" in message
    assert "callbacks.KID is unbiased" in message


def test_too_few_images_are_nothing_to_measure() -> None:
    with pytest.raises(NothingToMeasure, match="at least 2 generated and 2 real images, got 1 and"):
        fid(normal(5, 4, 11), normal(1, 4, 11))
