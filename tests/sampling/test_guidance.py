from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from tiny import tiny_pretzel

from pretzel.flow import AFBlock, MixtureCDF, Raster
from pretzel.flow.transforms import AffineExp
from pretzel.interleave import Stacked, Unconditional
from pretzel.sampling.guidance import (
    AttentionTemperature,
    GaussianMixing,
    LinearGuidance,
    NoGuidance,
)
from pretzel.sampling.inversion import BlockInversion, check_guidance, check_guided
from pretzel.sampling.samplers import Sequential
from pretzel.testing import perturb, run_laws
from pretzel.testing.law_case import normal
from pretzel.testing.laws.guidance import sample
from pretzel.testing.tiny_model import transformer


@pytest.mark.parametrize("w", [0.5, 1.5, 4.0])
def test_mixing_is_the_product_of_gaussian_powers(w):
    # Where sigma_c <= sigma_u: N(mu_c, s_c^2)^(1+w) N(mu_u, s_u^2)^(-w), in natural parameters.
    c, u = sample()
    u = replace(u, sigma=torch.maximum(c.sigma, u.sigma))
    precision = (1 + w) / c.sigma**2 - w / u.sigma**2
    shift = (1 + w) * c.mu / c.sigma**2 - w * u.mu / u.sigma**2
    mixed = GaussianMixing(w).mix(c, u, w)
    torch.testing.assert_close(mixed.mu, shift / precision)
    torch.testing.assert_close(mixed.sigma, precision**-0.5)


def test_a_wider_conditional_is_treated_as_equally_wide():
    c, u = sample()
    mixed = GaussianMixing(2.0).mix(c, replace(u, sigma=c.sigma / 3), 2.0)
    torch.testing.assert_close(mixed.mu, 3 * c.mu - 2 * u.mu)
    torch.testing.assert_close(mixed.sigma, c.sigma)


def test_guidance_pushes_further_away_with_its_weight():
    c, u = sample()
    means = [GaussianMixing(w).mix(c, u, w).mu for w in (0.0, 1.0, 2.0)]
    for weaker, stronger in pairwise(means):
        assert ((stronger - weaker) * (c.mu - u.mu).sign() > 0).all()


def test_weight_must_not_be_negative():
    with pytest.raises(ValueError, match="weight must be 0 or positive, got -1"):
        GaussianMixing(-1.0)
    with pytest.raises(ValueError, match="weight must be 0 or positive, got -1"):
        LinearGuidance(-1.0)


def test_linear_guidance_extrapolates_mean_and_log_scale():
    c, u = sample()
    mixed = LinearGuidance(3.0).mix(c, u, 3.0)
    torch.testing.assert_close(mixed.mu, 4 * c.mu - 3 * u.mu)
    torch.testing.assert_close(mixed.sigma.log(), 4 * c.sigma.log() - 3 * u.sigma.log())
    scale_only = LinearGuidance(3.0, mean=False).mix(c, u, 3.0)
    assert torch.equal(scale_only.mu, c.mu)
    assert torch.equal(scale_only.sigma, mixed.sigma)
    mean_only = LinearGuidance(3.0, scale=False).mix(c, u, 3.0)
    assert torch.equal(mean_only.sigma, c.sigma)


@pytest.mark.parametrize("options", [{"mean": False}, {"scale": False}, {"weight": 0.0}])
def test_guidance_of_one_parameter_or_of_none_obeys_the_laws(options):
    run_laws(partial(LinearGuidance, **{"weight": 1.0, **options}))


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
    assert solved(block, GaussianMixing(1.0)).isfinite().all()  # no null branch, nothing to mix
    with pytest.raises(ValueError, match="AttentionTemperature needs an affine transform"):
        solved(block, AttentionTemperature(GaussianMixing(1.0), temperature=2.0))


@pytest.mark.parametrize("interleaving", [Stacked, Unconditional])
def test_a_model_is_checked_only_where_its_guidance_does_something(interleaving):
    model = tiny_pretzel(interleaving)
    model.deep.transform = MixtureCDF(num_components=2)
    tempered = AttentionTemperature(GaussianMixing(1.0), temperature=2.0)
    with pytest.raises(ValueError, match="AttentionTemperature needs an affine transform"):
        check_guided(model, tempered)
    check_guided(model, AttentionTemperature(GaussianMixing(0.0), temperature=2.0))
    check_guided(model, NoGuidance())
    if model.reads_text:
        with pytest.raises(ValueError, match="GaussianMixing needs an affine transform, got Mix"):
            check_guided(model, GaussianMixing(1.0))
    else:
        check_guided(model, GaussianMixing(1.0))
