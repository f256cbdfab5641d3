"""A flow by itself: likelihood, conditioning, training, sampling through the module."""

from functools import partial

import pytest
import torch

from pretzel.flow import (
    AddedContext,
    AFBlock,
    AffineExp,
    ClassVector,
    ExplicitSplit,
    Flip,
    LearnedPositions,
    MixtureCDF,
    Raster,
    ZeroShift,
)
from pretzel.generation.latents import sample_latents
from pretzel.latent import Pixels
from pretzel.sampling.denoisers import NoDenoiser
from pretzel.sampling.guidance import GaussianMixing, LinearGuidance, NoGuidance
from pretzel.sampling.samplers import Jacobi, Sequential
from pretzel.sequence.document import Document, Image, Text, caption_document
from pretzel.tarflow import ClassNames, NoCondition, TarFlow
from pretzel.testing import perturb
from pretzel.testing.gradients import jacobian
from pretzel.testing.law_case import normal
from pretzel.testing.tiny_model import transformer
from pretzel.training.module import PretzelModule
from pretzel.training.schedule import Constant

NAMES = ["circle", "square"]


def tarflow(names=NAMES, transform=None):
    block = partial(
        AFBlock,
        transform=transform or AffineExp(),
        conditioner=transformer(width=16, head_dim=8),
        positions=LearnedPositions,
        start=ZeroShift,
        context=partial(AddedContext, vector=partial(ClassVector, num_classes=2))
        if names
        else None,
    )
    model = TarFlow(
        latent=Pixels(image_size=4, patch_size=2, noise=0.1),
        split=ExplicitSplit(shallow=[1, 1], deep=1),
        permutations=[Raster(), Flip()],
        shallow=block,
        deep=block,
        condition=ClassNames(names) if names else NoCondition(),
    ).double()
    perturb(model)
    return model


def documents():
    return [
        caption_document("circle"),
        caption_document("square", dropped=True),
        Document(key="", segments=(Image(), Text(content="what is it?"))),
    ]


@pytest.mark.parametrize("names", [NAMES, None])
def test_the_likelihood_is_exact(names):
    model = tarflow(names)
    for document in documents():
        x = normal(1, 4, 12)[0]
        matrix = jacobian(lambda rows, d=document: model.score([d] * len(rows), rows).z, x)
        logdet = torch.linalg.slogdet(matrix.reshape(48, 48)).logabsdet
        with torch.no_grad():
            scores = model.score([document], x[None])
        gaussian = torch.distributions.Normal(0.0, 1.0).log_prob(scores.z).sum()
        torch.testing.assert_close(scores.log_prob[0], gaussian + logdet, rtol=0, atol=1e-9)


def test_only_text_before_the_image_that_was_not_dropped_conditions_it():
    model = tarflow()
    x = normal(1, 4, 12).expand(3, -1, -1)
    with torch.no_grad():
        named, dropped, behind = model.score(documents(), x).log_prob
        null = model.stack(x[:1], torch.tensor([-1]))
    assert named != dropped
    assert dropped == behind
    alone = torch.distributions.Normal(0.0, 1.0).log_prob(null.z).sum() + null.logdet[0]
    torch.testing.assert_close(dropped, alone)


def test_documents_without_an_image_are_not_counted():
    model = tarflow()
    with pytest.raises(ValueError, match="these documents hold 1 images, got the latents of 2"):
        model.score([documents()[0], Document(key="", segments=())], normal(2, 4, 12))


def test_of_several_images_the_first_is_modelled():
    model, x = tarflow(), normal(3, 4, 12)
    two = Document(key="two", segments=(*caption_document(NAMES[0]).segments, Image()))
    one = caption_document(NAMES[1])
    with torch.no_grad():
        actual = model.score([two, Document(key="", segments=()), one], x).log_prob
        alone = model.score([caption_document(NAMES[0]), one], x[[0, 2]]).log_prob
    assert torch.equal(actual, alone)


@pytest.mark.parametrize("guidance", [NoGuidance(), GaussianMixing(2.0), LinearGuidance(1.0)])
def test_samplers_agree_and_unguided_samples_map_back(guidance):
    model, z = tarflow(), normal(2, 4, 12, key="z")
    with torch.no_grad():
        one = sample_latents(model, NAMES, z, guidance, Sequential())
        other = sample_latents(model, NAMES, z, guidance, Jacobi(tolerance=0.0))
        torch.testing.assert_close(other.x, one.x, rtol=0, atol=1e-9)
        back = model.score([caption_document(name) for name in NAMES], one.x).z
    assert torch.allclose(back, z, atol=1e-9) == (guidance.weight == 0)
    assert len(one.work) == 3


def test_condition_and_blocks_must_agree():
    block = partial(AFBlock, transform=AffineExp(), conditioner=transformer(width=16, head_dim=8))
    options = {
        "latent": Pixels(4, 2, 0.1), "split": ExplicitSplit([], 1), "permutations": [Raster()],
        "shallow": block,
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"condition ClassNames .* no block has a context"):
        TarFlow(**options, deep=block, condition=ClassNames(NAMES))
    conditioned = partial(
        block, context=partial(AddedContext, vector=partial(ClassVector, num_classes=2))
    )
    with pytest.raises(ValueError, match=r"condition NoCondition .* would be given none"):
        TarFlow(**options, deep=conditioned, condition=NoCondition())


def module(**options):
    settings = {
        "text_weight": 0.0, "optimizer": partial(torch.optim.SGD, lr=0.1), "schedule": Constant(),
        "guidance": GaussianMixing(1.0), "denoiser": NoDenoiser(), "sampler": Sequential(),
    }  # fmt: skip
    return PretzelModule(**{"pretzel": tarflow().float(), **settings, **options})


def test_the_module_samples_and_names_its_frozen_parts():
    made = module()
    images = made.sample(NAMES, stream_key=("test",))
    assert images.shape == (2, 3, 4, 4)
    assert made.frozen_identities() == {
        "latent": "pixels:4/2", "text_condition": "classes:circle,square",
    }  # fmt: skip
    assert not made.can_answer
    with pytest.raises(ValueError, match="must be a model that answers questions, got TarFlow"):
        made.answer(images, ["why?"] * 2, ["a", "b"])


def test_guidance_of_a_transform_that_is_not_affine_is_refused_when_built():
    model = tarflow(transform=MixtureCDF(num_components=2)).float()
    with pytest.raises(ValueError, match="GaussianMixing needs an affine transform"):
        module(pretzel=model)
    module(pretzel=model, guidance=NoGuidance())


def test_more_names_than_classes_are_refused_where_they_meet():
    with pytest.raises(ValueError, match=r"num_classes must be at least .* 3 names, got 2"):
        tarflow(["circle", "square", "star"])
