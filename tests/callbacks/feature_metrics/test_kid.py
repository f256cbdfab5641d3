"""KID is the unbiased MMD of torchmetrics' own subsets, in bounded memory."""

import pytest
import torch
from known_features import corner, measure_features, normal
from torch import Tensor
from torchmetrics.image.kid import poly_mmd

from callbacks import KID, Inception, JudgeFeatures
from callbacks.feature_metrics import feature_rows, kernels
from pretzel.errors import NothingToMeasure, UserError


def test_kid_over_whole_sets_is_the_unbiased_mmd() -> None:
    real, generated = normal(60, 4, 5), normal(60, 4, 6) + 0.5
    values = measure_features(KID(corner(4), subsets=3, subset_size=60), real, generated)
    expected = float(poly_mmd(real.double(), generated.double()))
    assert values["kid_corner"] == pytest.approx(expected, rel=1e-9)
    assert values["kid_corner_std"] == pytest.approx(0, abs=1e-9)
    assert values["kid_corner_n"] == values["kid_corner_n_real"] == 60


def test_its_subsets_are_those_of_torchmetrics() -> None:
    real, generated = normal(60, 4, 5), normal(50, 4, 6) + 0.5
    values = measure_features(KID(corner(4), subsets=5, subset_size=20), real, generated)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        expected = torch.stack(
            [
                poly_mmd(*(x[torch.randperm(len(x))[:20]] for x in (real, generated)))
                for _ in "12345"
            ]
        )
    assert values["kid_corner"] == pytest.approx(float(expected.mean()), rel=1e-4)
    assert values["kid_corner_std"] == pytest.approx(float(expected.std(unbiased=False)), rel=1e-4)


@pytest.mark.parametrize("unbiased", [True, False])
def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch, unbiased: bool) -> None:
    def mmd() -> float:
        x, y = normal(50, 3, 0), normal(41, 3, 1)
        device = torch.device("cpu")
        return kernels.squared_mmd(x, y, _distance_kernel, unbiased=unbiased, device=device)

    whole = mmd()
    for module in (feature_rows, kernels):
        monkeypatch.setattr(module, "BLOCK", 8)
    assert mmd() == pytest.approx(whole, rel=1e-12)


def _distance_kernel(a: Tensor, b: Tensor) -> Tensor:
    return (-torch.cdist(a, b)).exp()


def test_kid_of_equal_distributions_is_near_zero_and_moves_no_global_state() -> None:
    metric = KID(corner(4), subsets=30, subset_size=100)
    state = torch.get_rng_state()
    values = measure_features(metric, normal(500, 4, 7), normal(500, 4, 8))
    assert torch.equal(state, torch.get_rng_state())
    assert abs(values["kid_corner"]) < values["kid_corner_std"]
    assert metric.compute() == values
    assert metric.names() == values.keys()


def test_names_and_mistakes() -> None:
    assert KID(Inception()).names() >= {"kid", "kid_std"}
    assert KID().name == "kid_efflite0"
    with pytest.raises(NothingToMeasure, match="at least 100 generated and 100 real images, got 5"):
        measure_features(KID(corner(4)), normal(5, 4, 11), normal(5, 4, 11))
    with pytest.raises(UserError, match="subset_size must be at least 2, got 1"):
        KID(JudgeFeatures(), subset_size=1)
