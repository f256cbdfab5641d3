import torch

from pretzel.interleave import Stacked
from pretzel.sampling.denoise import NoDenoiser, ScoreDenoiser
from pretzel.sampling.guidance import GaussianMixing, NoGuidance
from pretzel.sampling.images import latent_log_prob, prompt_document, sample_images
from pretzel.testing import Case, tiny_pretzel
from pretzel.testing.case import normal

CASE = Case(factory=lambda: tiny_pretzel(Stacked), perturbed=True)


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
    documents = [prompt_document("a red circle"), prompt_document("a shape")]
    x, step = normal(2, 4, 12), 1e-5
    direction = normal(2, 4, 12, key="direction")

    def log_prob(point):
        return latent_log_prob(model, documents, point)

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
        first = sample_images(model, prompts, z, GaussianMixing(1.0), ScoreDenoiser())
    second = sample_images(model, prompts, z, GaussianMixing(1.0), ScoreDenoiser())
    assert first.shape == (2, 3, 4, 4)
    assert first.abs().max() <= 1
    assert torch.equal(first, second)
    for other in (
        sample_images(model, prompts, z, NoGuidance(), ScoreDenoiser()),
        sample_images(model, prompts, z, GaussianMixing(1.0), NoDenoiser()),
        sample_images(model, prompts[::-1], z, GaussianMixing(1.0), ScoreDenoiser()),
    ):
        assert not torch.allclose(first, other)
