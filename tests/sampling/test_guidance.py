from itertools import pairwise

import pytest
import torch

from pretzel.flow import AFBlock, MixtureCDF, Raster
from pretzel.flow.transforms import AffineExp
from pretzel.sampling.guidance import AttentionTemperature, GaussianMixing, LinearGuidance
from pretzel.sampling.inversion import BlockInversion, check_guidance
from pretzel.sampling.samplers import Sequential
from pretzel.testing import perturb
from pretzel.testing.case import normal
from pretzel.testing.guidance import sample
from pretzel.testing.tiny import transformer


@pytest.mark.parametrize("w", [0.5, 1.5, 4.0])
def test_mixing_is_the_product_of_gaussian_powers(w):
    # Where sigma_c <= sigma_u: N(mu_c, s_c^2)^(1+w) N(mu_u, s_u^2)^(-w), in natural parameters.
    mu_c, sigma_c, mu_u, sigma_u = sample()
    sigma_u = torch.maximum(sigma_c, sigma_u)
    precision = (1 + w) / sigma_c**2 - w / sigma_u**2
    shift = (1 + w) * mu_c / sigma_c**2 - w * mu_u / sigma_u**2
    mu, sigma = GaussianMixing(w).mix(mu_c, sigma_c, mu_u, sigma_u, w)
    torch.testing.assert_close(mu, shift / precision)
    torch.testing.assert_close(sigma, precision**-0.5)


def test_a_wider_conditional_is_treated_as_equally_wide():
    mu_c, sigma_c, mu_u, _ = sample()
    mu, sigma = GaussianMixing(2.0).mix(mu_c, sigma_c, mu_u, sigma_c / 3, 2.0)
    torch.testing.assert_close(mu, 3 * mu_c - 2 * mu_u)
    torch.testing.assert_close(sigma, sigma_c)


def test_guidance_pushes_away_from_the_unconditional():
    mu_c, sigma_c, mu_u, sigma_u = sample()
    means = [GaussianMixing(w).mix(mu_c, sigma_c, mu_u, sigma_u, w)[0] for w in (0.0, 1.0, 2.0)]
    for weaker, stronger in pairwise(means):
        assert ((stronger - weaker) * (mu_c - mu_u).sign() > 0).all()


def test_weight_must_not_be_negative():
    with pytest.raises(ValueError, match="weight must be 0 or positive, got -1"):
        GaussianMixing(-1.0)
    with pytest.raises(ValueError, match="weight must be 0 or positive, got -1"):
        LinearGuidance(-1.0)


def test_linear_guidance_extrapolates_mean_and_log_scale():
    mu_c, sigma_c, mu_u, sigma_u = sample()
    mu, sigma = LinearGuidance(3.0).mix(mu_c, sigma_c, mu_u, sigma_u, 3.0)
    torch.testing.assert_close(mu, 4 * mu_c - 3 * mu_u)
    torch.testing.assert_close(sigma.log(), 4 * sigma_c.log() - 3 * sigma_u.log())
    mu, sigma = LinearGuidance(3.0, mean=False).mix(mu_c, sigma_c, mu_u, sigma_u, 3.0)
    assert torch.equal(mu, mu_c)
    assert not torch.equal(sigma, sigma_c)
    mu, sigma = LinearGuidance(3.0, scale=False).mix(mu_c, sigma_c, mu_u, sigma_u, 3.0)
    assert torch.equal(sigma, sigma_c)


def unconditional(transform=None):
    block = AFBlock(
        2, (3, 3), 1, Raster(), transform=transform or AffineExp(),
        conditioner=transformer(width=16, head_dim=8),
    ).double()  # fmt: skip
    perturb(block)
    return block


def solved(block, guidance, **options):
    inversion = BlockInversion(block, normal(2, 9, 2), guidance=guidance, **options)
    with torch.no_grad():
        Sequential().solve(inversion, 0)
    return inversion.x


@pytest.mark.parametrize("kind", [LinearGuidance, GaussianMixing])
def test_annealing_really_anneals(kind):
    """Position by position the samples are those of a constant weight that grows."""
    block = unconditional()

    def sampled(weight, annealed):
        guidance = AttentionTemperature(kind(weight, annealed=annealed), temperature=0.4)
        return solved(block, guidance)

    constant, annealed = sampled(4.0, False), sampled(4.0, True)
    assert not torch.allclose(annealed, constant)
    for position in range(9):
        weight = kind(4.0 * position / 8)
        guidance = AttentionTemperature(weight, temperature=0.4)
        inversion = BlockInversion(block, normal(2, 9, 2), guidance=guidance)
        inversion.branches.write(0, 9, annealed)
        with torch.no_grad():
            expected = inversion.evaluate(0, 9)[:, position]
        torch.testing.assert_close(annealed[:, position], expected, rtol=0, atol=1e-12)
    weights = kind(4.0, annealed=True).weights(0, 9, 9).flatten()
    torch.testing.assert_close(weights, torch.arange(9).double() / 2)
    assert kind(4.0).weights(3, 5, 9).flatten().tolist() == [4.0, 4.0]


def test_attention_temperature_guides_a_model_without_context():
    block = unconditional()
    plain = solved(block, None)
    assert torch.equal(solved(block, LinearGuidance(2.0)), plain)  # no null branch to be had
    same = AttentionTemperature(LinearGuidance(2.0), temperature=1.0)
    assert torch.equal(solved(block, same), plain)
    other = AttentionTemperature(LinearGuidance(2.0), temperature=1.5)
    assert not torch.allclose(solved(block, other), plain)
    with pytest.raises(ValueError, match=r"temperature must be positive, got 0"):
        AttentionTemperature(LinearGuidance(2.0), temperature=0.0)


def test_a_temperature_of_all_branches_divides_the_attention_logits():
    block = unconditional()
    assert torch.equal(solved(block, None, temperature=1.0), solved(block, None))
    tempered = solved(block, None, temperature=0.5)
    for layer in block.conditioner.layers:
        layer.attention.query_norm.weight.data *= 2
    torch.testing.assert_close(solved(block, None), tempered, rtol=0, atol=1e-12)


def test_transforms_that_are_not_affine_are_refused():
    message = "GaussianMixing needs an affine transform, got MixtureCDF"
    with pytest.raises(ValueError, match=message):
        check_guidance(GaussianMixing(1.0), MixtureCDF(num_components=2))
    check_guidance(GaussianMixing(0.0), MixtureCDF(num_components=2))
    block = unconditional(MixtureCDF(num_components=2))
    with pytest.raises(ValueError, match="AttentionTemperature needs an affine transform"):
        solved(block, AttentionTemperature(GaussianMixing(1.0), temperature=2.0))
