"""Likelihoods against closed forms, and what the model refuses."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny import TRANSFORMER

from pretzel.flow import AFBlock, AffineSoftplus, DeepStream, ExplicitSplit
from pretzel.generation.answers import answer
from pretzel.generation.latents import sample_u
from pretzel.interleave import Stacked, TextPrefix, Unconditional
from pretzel.latent import Pixels
from pretzel.model import Pretzel
from pretzel.sampling.guidance import AttentionTemperature, GaussianMixing, LinearGuidance
from pretzel.sampling.samplers import Jacobi
from pretzel.sequence.document import Document, DocumentBatch, Text
from pretzel.testing import Case, tiny_pretzel
from pretzel.testing.laws.models import latents, run_streams
from pretzel.testing.tiny_model import batch, documents

ALL = pytest.mark.parametrize("interleaving", [Stacked, TextPrefix, Unconditional])


def built(interleaving=Stacked, *, perturbed=True, **sizes):
    factory = lambda: tiny_pretzel(interleaving, **sizes)  # noqa: E731
    return Case(factory=factory, perturbed=perturbed).build()


@ALL
def test_at_initialisation_the_density_is_the_standard_normal(interleaving):
    model = built(interleaving, perturbed=False, image_size=8, patch_size=4)
    x = latents(model, 4)
    with torch.no_grad():
        output = model.score(documents(), x)
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(dim=(1, 2))
    torch.testing.assert_close(output.log_prob, normal, rtol=0, atol=1e-10)
    torch.testing.assert_close(output.z, x, rtol=0, atol=1e-12)


def test_a_known_gaussian_has_its_density():
    model = built(perturbed=False)
    scale, mean = 0.3, -1.2
    a = math.log(math.expm1((scale - 1e-4) / (1 - 1e-4))) - math.log(math.e - 1)
    with torch.no_grad():
        model.deep.head.bias.copy_(torch.tensor([a] * 12 + [mean] * 12, dtype=torch.float64))
        x = latents(model, 4)
        found = model.score(documents(), x).log_prob
    exact = torch.tensor([mean, scale], dtype=torch.float64)
    expected = torch.distributions.Normal(*exact).log_prob(x).sum(dim=(1, 2))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_the_noise_floor_is_reached_by_the_true_density_of_noise():
    # -log p of pure noise, under the density of noise itself, averages to the floor
    model = built(perturbed=False)
    noise = model.noise(400, "floor").double()
    density = torch.distributions.Normal(0.0, model.latent.noise)
    nll = -density.log_prob(model.latent.noise * noise).sum(dim=(1, 2)) / model.latent.dims
    likelihood = model.log_prob(batch(model), latents(model, 4))
    assert likelihood.dims == 48
    assert nll.mean().item() == pytest.approx(likelihood.noise_floor, abs=0.02)
    assert "Pixels 4 px" in likelihood.unit


@ALL
def test_token_likelihoods_are_those_of_the_supervised_tokens(interleaving):
    model = built(interleaving)
    given = batch(model)
    noise = latents(model, 4)
    with torch.no_grad():
        nll = model(given, noise).token_nll
    if not model.interleaving.answers:
        assert nll.shape == (0,)
        return
    packed = model.pack(given.documents)
    with torch.no_grad():
        u = model.shallow(model.encode(given.images, noise)).z
        logits = model.vlm.logits(run_streams(model, given.documents, u).text)
    expected = F.cross_entropy(logits.transpose(1, 2), packed.targets, reduction="none")
    torch.testing.assert_close(nll, expected[packed.targets != -100])
    # begin-of-image after two captions, two answers of one token with their ends
    assert len(nll) == 2 + 2 * 2


def test_a_batch_without_images_has_text_likelihoods_alone():
    model = built()
    document = Document(
        key="", segments=(Text(content="what color?"), Text(content="red", role="target"))
    )
    given = DocumentBatch(documents=(document, document), images=torch.zeros(0, 3, 4, 4).double())
    output = model(given, latents(model, 0))
    assert output.log_prob.shape == (0,)
    assert output.z.shape == (0, 4, 12)
    assert output.token_nll.shape == (4,)
    first, second = output.token_nll.split(2)
    torch.testing.assert_close(first, second, rtol=0, atol=1e-12)


def test_a_batch_without_targets_has_image_likelihoods_alone():
    model = built()
    given = batch(model)
    given = replace(given, documents=given.documents[2:3], images=given.images[2:3])
    output = model(given, latents(model, 1))
    assert output.token_nll.shape == (0,)
    assert output.log_prob.shape == (1,)


def test_images_and_documents_must_agree():
    model = built()
    with pytest.raises(ValueError, match="these documents hold 4 images, got the latents of 3"):
        model.score(documents(), latents(model, 3))


def test_noise_belongs_to_its_key():
    model = built()
    a, b = (
        model.sample_noise(["a", "b"], 0, "evaluation"),
        model.sample_noise(["b"], 0, "evaluation"),
    )
    assert torch.equal(a[1:], b)
    assert not torch.equal(a[0], a[1])
    assert not torch.equal(b, model.sample_noise(["b"], 1, "evaluation"))
    assert model.sample_noise([], 0, "evaluation").shape == (0, 4, 12)


def test_latents_carry_noise_of_the_stated_size():
    model = built()
    images, noise = batch(model).images, latents(model, 4)
    torch.testing.assert_close(
        model.encode(images, noise) - model.latent.encode(images), 0.1 * noise
    )
    torch.testing.assert_close(model.latent.decode(model.latent.encode(images)), images)


@ALL
def test_guidance_changes_samples_only_where_text_is_read(interleaving):
    model = built(interleaving)
    prompts = ["a red circle"]
    z = latents(model, 1, key="z")
    with torch.no_grad():
        plain = sample_u(model, prompts, z, GaussianMixing(0.0)).x
        guided = sample_u(model, prompts, z, GaussianMixing(2.0)).x
    if model.interleaving.reads_text:
        assert not torch.allclose(plain, guided)
    else:
        torch.testing.assert_close(plain, guided)


def test_models_without_image_to_text_refuse_questions():
    model = built(TextPrefix)
    with pytest.raises(ValueError, match="must be one that answers questions, got TextPrefix"):
        answer(model, latents(model, 1), torch.tensor([0]), ["why?"])


def test_answers_do_not_depend_on_the_other_questions():
    model = built()
    x = latents(model, 2)
    questions = ["what color is the shape?", "why?", "is it a very small circle?"]
    of = torch.tensor([1, 0, 1])
    together = answer(model, x, of, questions)
    alone = [answer(model, x[i : i + 1], torch.tensor([0]), [q])[0]
             for i, q in zip(of.tolist(), questions, strict=True)]  # fmt: skip
    assert together == alone
    assert len(set(together)) > 1


def test_shallow_blocks_need_an_order():
    model = built()
    with pytest.raises(ValueError, match="permutations must name at least one scan order"):
        Pretzel(
            latent=Pixels(4, 2, 0.1),
            split=ExplicitSplit([1], 1),
            permutations=[],
            shallow=lambda *a: AFBlock(*a, transform=AffineSoftplus(), conditioner=TRANSFORMER),
            deep=lambda *a: DeepStream(*a, transform=AffineSoftplus(), conditioner=TRANSFORMER),
            vlm=model.vlm,
            interleaving=Stacked,
        )


@pytest.mark.parametrize("interleaving", [Stacked, Unconditional])
def test_attention_temperature_guides_the_deep_stream(interleaving):
    model = built(interleaving)
    prompts = ["a red circle", "a shape"]
    z = latents(model, 2, key="z")

    def sampled(temperature, weight=1.0, sampler=None):
        guidance = AttentionTemperature(LinearGuidance(weight), temperature, keeps_context=True)
        with torch.no_grad():
            return sample_u(model, prompts, z, guidance, sampler).x

    plain = sampled(2.0, weight=0.0)
    torch.testing.assert_close(sampled(1.0), plain)
    assert not torch.allclose(sampled(2.0), plain)
    jacobi = sampled(2.0, sampler=Jacobi(block_size=2, tolerance=0.0))
    torch.testing.assert_close(jacobi, sampled(2.0), rtol=0, atol=1e-10)
