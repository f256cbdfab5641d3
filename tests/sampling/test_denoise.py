import pytest
import torch

from pretzel.errors import UserError
from pretzel.generation import images
from pretzel.interleave import Stacked
from pretzel.sampling.denoisers import NoDenoiser, ScoreDenoiser
from pretzel.sampling.guidance import GaussianMixing, NoGuidance
from pretzel.sampling.learned_denoiser import LearnedDenoiser
from pretzel.sampling.samplers import Sequential
from pretzel.sequence.document import caption_document
from pretzel.testing import Case, perturb, tiny_pretzel
from pretzel.testing.law_case import normal

CASE = Case(factory=lambda: tiny_pretzel(Stacked), perturbed=True)


def sample_images(model, prompts, z, guidance, denoiser):
    return images.sample_images(model, prompts, z, guidance, denoiser, Sequential()).pixels


def test_score_is_tweedies_posterior_mean_of_a_gaussian():
    # clean ~ N(m, s^2), noised ~ N(m, s^2 + sigma^2): E[clean | x] shrinks x towards m
    m, s, sigma = 0.7, 0.4, 0.3

    def log_prob(x):
        return -0.5 * (x - m).square().sum(dim=(1, 2)) / (s**2 + sigma**2)

    x = normal(3, 4, 5)
    clean = ScoreDenoiser()(x, sigma, log_prob)
    torch.testing.assert_close(clean, m + (x - m) * s**2 / (s**2 + sigma**2), rtol=0, atol=1e-12)
    assert not clean.requires_grad


def test_score_of_a_model_is_the_gradient_of_its_exact_density():
    model = CASE.build()
    documents = [caption_document("a red circle"), caption_document("a shape")]
    x, step = normal(2, 4, 12), 1e-5
    direction = normal(2, 4, 12, key="direction")

    def log_prob(point):
        return model.score(documents, point).log_prob

    with torch.inference_mode():
        clean = ScoreDenoiser()(x.clone(), 0.1, log_prob)
    moved = (clean.clone() - x) / 0.1**2
    with torch.no_grad():
        slope = (log_prob(x + step * direction) - log_prob(x - step * direction)) / (2 * step)
    torch.testing.assert_close((moved * direction).sum(dim=(1, 2)), slope, rtol=1e-6, atol=1e-6)
    assert all(p.grad is None for p in model.parameters())


def test_images_come_out_under_inference_mode_guided_and_denoised():
    model = CASE.build(dtype=torch.float32)
    prompts, z = ["a red circle", "a shape"], normal(2, 4, 12).float()
    with torch.inference_mode():
        first = sample_images(model, prompts, z, GaussianMixing(weight=1.0), ScoreDenoiser())
    second = sample_images(model, prompts, z, GaussianMixing(weight=1.0), ScoreDenoiser())
    assert first.shape == (2, 3, 4, 4)
    assert first.abs().max() <= 1
    assert torch.equal(first, second)
    for other in (
        sample_images(model, prompts, z, NoGuidance(), ScoreDenoiser()),
        sample_images(model, prompts, z, GaussianMixing(weight=1.0), NoDenoiser()),
        sample_images(model, prompts[::-1], z, GaussianMixing(weight=1.0), ScoreDenoiser()),
    ):
        assert not torch.allclose(first, other)


# Learned


def not_asked(x):
    raise AssertionError("a learned denoiser needs no density")


def learned(channels=2, grid=(2, 2), **settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        denoiser = LearnedDenoiser(**{"width": 16, "num_blocks": 1, **settings})
        denoiser.fit_to(channels, grid)
    return denoiser


def gaussian(shape, key):
    """Return N(1, 4) and its posterior mean: a known shrinkage."""
    return 1 + 2 * normal(
        *shape, key=key
    ).float(), lambda x, sigma: 1 + (x - 1) * 4 / (4 + sigma**2)


def signs(shape, key):
    """Return -1 or 1, each with probability a half, and E[clean | x] = tanh(x / sigma^2)."""
    return normal(*shape, key=key).sign().float(), lambda x, sigma: torch.tanh(x / sigma**2)


@pytest.mark.parametrize(("distribution", "left_over"), [(gaussian, 0.2), (signs, 0.05)])
def test_trained_it_comes_close_to_the_posterior_mean(distribution, left_over):
    denoiser, sigma = learned(), 0.5
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=1e-2)
    steps = 300
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - step / steps)
        clean, _ = distribution((256, 4, 2), f"clean {step}")
        noised = clean + sigma * normal(256, 4, 2, key=f"noise {step}").float()
        optimizer.zero_grad()
        denoiser.loss(noised, clean, sigma).mean().backward()
        optimizer.step()
    clean, posterior_mean = distribution((2000, 4, 2), "test")
    noised = clean + sigma * normal(2000, 4, 2, key="test noise").float()
    best = posterior_mean(noised, sigma)
    found = denoiser(noised, sigma, not_asked)
    # of what the posterior mean improves on doing nothing, it leaves at most this share
    gain = (best - noised).square().mean()
    assert (found - best).square().mean() < left_over * gain
    errors = [(x - clean).square().mean() for x in (best, found, noised)]
    assert errors[0] < errors[1] < errors[2]


def test_the_best_loss_on_a_gaussian_is_its_posterior_variance():
    # so that the optimum above is what the loss measures: s^2 sigma^2 / (s^2 + sigma^2)
    clean, posterior_mean = gaussian((40_000, 1, 1), "many")
    noised = clean + 0.5 * normal(40_000, 1, 1, key="noise").float()
    error = (posterior_mean(noised, 0.5) - clean).square().mean()
    assert error.item() == pytest.approx(4 * 0.25 / 4.25, rel=0.02)


@pytest.mark.parametrize("grid", [(5,), (2, 3), (1, 2, 2)])
def test_it_starts_as_no_denoiser_on_grids_of_one_to_three_axes(grid):
    denoiser = learned(grid=grid)
    x = normal(3, torch.Size(grid).numel(), 2).float()
    assert torch.equal(denoiser(x, 0.5, not_asked), x)
    noise = normal(*x.shape, key="noise").float()
    torch.testing.assert_close(
        denoiser.loss(x + 0.5 * noise, x, 0.5), 0.25 * noise.square().mean(dim=(1, 2))
    )


def test_positions_are_laid_out_in_raster_order():
    # four convolutions of side 3 reach four positions far, along both axes of the grid
    denoiser = learned(channels=1, grid=(2, 9), num_blocks=1)
    perturb(denoiser)
    x = normal(1, 18, 1).float()
    moved = x.clone()
    moved[0, 9] += 1.0  # first of the second row
    changed = (denoiser(moved, 0.5, not_asked) != denoiser(x, 0.5, not_asked)).view(2, 9)
    assert changed.tolist() == [[True] * 5 + [False] * 4] * 2


def test_building_it_leaves_the_global_random_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    LearnedDenoiser(width=8).fit_to(2, (2, 2))
    assert torch.equal(torch.rand(2), expected)


def test_mistakes_in_sizes_are_named():
    with pytest.raises(UserError, match="width must be at least 1, got 0"):
        LearnedDenoiser(width=0)
    with pytest.raises(UserError, match="kernel_size must be odd and positive, got 2"):
        LearnedDenoiser(kernel_size=2)
    with pytest.raises(UserError, match=r"grid of 1, 2 or 3 axes, got grid \(1, 1, 1, 1\)"):
        LearnedDenoiser().fit_to(2, (1, 1, 1, 1))
    with pytest.raises(UserError, match=r"fit_to\(channels, grid\) must come before denoising"):
        LearnedDenoiser()(normal(1, 4, 2).float(), 0.5, not_asked)
    denoiser = learned()
    denoiser.fit_to(2, (2, 2))  # the same sizes again are no mistake
    with pytest.raises(UserError, match=r"built for 2 channels on grid \(2, 2\)"):
        denoiser.fit_to(3, (2, 2))
    with pytest.raises(UserError, match=r"takes latents \[m, 4, 2\] .*, got \(1, 5, 2\)"):
        denoiser(normal(1, 5, 2).float(), 0.5, not_asked)


def test_a_model_samples_with_it():
    model = CASE.build(dtype=torch.float32)
    denoiser = learned(12, (2, 2))
    prompts, z = ["a red circle", "a shape"], normal(2, 4, 12).float()
    plain = sample_images(model, prompts, z, NoGuidance(), NoDenoiser())
    assert torch.equal(sample_images(model, prompts, z, NoGuidance(), denoiser), plain)
    perturb(denoiser)
    denoised = sample_images(model, prompts, z, NoGuidance(), denoiser)
    assert not torch.allclose(denoised, plain, atol=1e-3)
