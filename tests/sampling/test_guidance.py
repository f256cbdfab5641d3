from itertools import pairwise

import pytest
import torch

from pretzel.sampling.guidance import GaussianMixing
from pretzel.testing.guidance import sample


@pytest.mark.parametrize("w", [0.5, 1.5, 4.0])
def test_mixing_is_the_product_of_gaussian_powers(w):
    # Where sigma_c <= sigma_u: N(mu_c, s_c^2)^(1+w) N(mu_u, s_u^2)^(-w), in natural parameters.
    mu_c, sigma_c, mu_u, sigma_u = sample()
    sigma_u = torch.maximum(sigma_c, sigma_u)
    precision = (1 + w) / sigma_c**2 - w / sigma_u**2
    shift = (1 + w) * mu_c / sigma_c**2 - w * mu_u / sigma_u**2
    mu, sigma = GaussianMixing(w).mix(mu_c, sigma_c, mu_u, sigma_u)
    torch.testing.assert_close(mu, shift / precision)
    torch.testing.assert_close(sigma, precision**-0.5)


def test_a_wider_conditional_is_treated_as_equally_wide():
    mu_c, sigma_c, mu_u, _ = sample()
    mu, sigma = GaussianMixing(2.0).mix(mu_c, sigma_c, mu_u, sigma_c / 3)
    torch.testing.assert_close(mu, 3 * mu_c - 2 * mu_u)
    torch.testing.assert_close(sigma, sigma_c)


def test_guidance_pushes_away_from_the_unconditional():
    mu_c, sigma_c, mu_u, sigma_u = sample()
    means = [GaussianMixing(w).mix(mu_c, sigma_c, mu_u, sigma_u)[0] for w in (0.0, 1.0, 2.0)]
    for weaker, stronger in pairwise(means):
        assert ((stronger - weaker) * (mu_c - mu_u).sign() > 0).all()


def test_weight_must_not_be_negative():
    with pytest.raises(ValueError, match="weight must be 0 or positive, got -1"):
        GaussianMixing(-1.0)
