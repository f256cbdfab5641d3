import math

import pytest
import torch

from pretzel.flow import AffineExp, AffineSoftplus


def test_softplus_scale_is_one_at_zero_and_bounded_below():
    transform = AffineSoftplus(min_scale=0.01)
    params = torch.tensor([[0.0, -80.0, 2.0, 0.5, 0.5, 0.5]], dtype=torch.float64)
    mu, sigma = transform.location_and_scale(params)
    third = 0.01 + 0.99 * math.log1p(math.exp(2.0) * (math.e - 1))
    torch.testing.assert_close(sigma, torch.tensor([[1.0, 0.01, third]], dtype=torch.float64))
    assert mu.tolist() == [[0.5, 0.5, 0.5]]


def test_softplus_keeps_the_log_determinant_finite_where_sigma_underflows():
    params = torch.tensor([[-200.0, 0.0]])
    z, logdet = AffineSoftplus().forward(torch.tensor([[1e-4]]), params)
    assert z.item() == pytest.approx(1.0, rel=1e-4)
    assert logdet.item() == pytest.approx(-math.log(1e-4), rel=1e-4)


def test_exp():
    x, params = torch.tensor([[3.0]]), torch.tensor([[math.log(2.0), 1.0]])
    z, logdet = AffineExp().forward(x, params)
    assert z.item() == pytest.approx(1.0)
    assert logdet.item() == pytest.approx(-math.log(2.0))


@pytest.mark.parametrize("min_scale", [-0.1, 1.0])
def test_min_scale_is_checked(min_scale):
    with pytest.raises(ValueError, match=f"min_scale must be in .*got {min_scale}"):
        AffineSoftplus(min_scale=min_scale)
