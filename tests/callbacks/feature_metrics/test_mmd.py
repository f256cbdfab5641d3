"""The kernel distance is that of CMMD's published code, without its loss of digits."""

import pytest
import torch
from known_features import corner, measure_features, normal
from torch import Tensor
from torch.nn.functional import normalize

from callbacks import MMD
from pretzel.errors import UserError


def published(x: Tensor, y: Tensor, sigma: float = 10.0) -> float:
    """Return 1000 times the V-statistic of a Gaussian kernel, as CMMD's equation reads."""
    x, y = (normalize(rows.double(), dim=1) for rows in (x, y))

    def mean(a: Tensor, b: Tensor) -> Tensor:
        return (-torch.cdist(a, b).square() / (2 * sigma**2)).exp().mean()

    return 1000 * float(mean(x, x) + mean(y, y) - 2 * mean(x, y))


@pytest.mark.parametrize("sigma", [10.0, 0.5])
def test_it_is_the_published_value(sigma: float) -> None:
    real, generated = normal(70, 8, 0), normal(50, 8, 1) + 0.5
    values = measure_features(MMD(corner(8), sigma=sigma), real, generated)
    assert values["mmd_corner"] == pytest.approx(published(real, generated, sigma), rel=1e-7)
    assert (values["mmd_corner_n"], values["mmd_corner_n_real"]) == (50, 70)


def test_unbiased_it_is_zero_of_equal_distributions_in_the_mean() -> None:
    pairs = [(normal(20, 4, 2 * i), normal(20, 4, 2 * i + 1)) for i in range(40)]
    unbiased, biased = (
        torch.tensor(
            [measure_features(MMD(corner(4), 1.0, u), *pair)["mmd_corner"] for pair in pairs]
        )
        for u in (True, False)
    )
    error = unbiased.std() / len(pairs) ** 0.5
    assert abs(unbiased.mean()) < 3 * error
    assert biased.mean() > 10 * error


def test_size_of_features_does_not_matter() -> None:
    real, generated = normal(20, 4, 0), normal(20, 4, 1)
    one, other = (
        measure_features(MMD(corner(4)), real * scale, generated)["mmd_corner"]
        for scale in (1, 100)
    )
    assert one == pytest.approx(other, rel=1e-5)


def test_names_and_mistakes() -> None:
    metric = MMD()
    assert metric.names() == {"mmd_efflite0", "mmd_efflite0_n", "mmd_efflite0_n_real"}
    with pytest.raises(UserError, match="sigma must be positive, got 0"):
        MMD(sigma=0.0)
