"""Generation of images from prompts: latents by the flow, denoised and decoded."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pretzel.flow.generative_model import GenerativeModel
from pretzel.generation.prompts import prompt_document, sample_u
from pretzel.model import Pretzel
from pretzel.sampling.denoisers import Denoiser
from pretzel.sampling.guidance import Guidance
from pretzel.sampling.samplers import Sampler, Work
from pretzel.sampling.stack import Sampled, invert_stack
from pretzel.sequence.document import Document, Image
from pretzel.tarflow import TarFlow
from pretzel.typing import Float, Tensor


@dataclass(frozen=True, kw_only=True)
class Images:
    """Generated images, and what they took.

    Attributes:
        pixels: Images, clipped to [-1, 1].
        work: Network evaluations of each block of the flow, in the order of sampling.
    """

    pixels: Float[Tensor, "m 3 height width"]
    work: tuple[Work, ...]


def sample_images(
    model: GenerativeModel,
    prompts: Sequence[str],
    z: Float[Tensor, "m n d"],
    guidance: Guidance,
    denoiser: Denoiser,
    sampler: Sampler,
) -> Images:
    """Generate one image for each prompt.

    Args:
        model: The model.
        prompts: Captions.
        z: Standard normal noise [m, N, D].
        guidance: How conditional and null predictions are mixed.
        denoiser: What is done about the training noise.
        sampler: How positions are found.
    """
    with torch.inference_mode():
        sampled = sample_latents(model, prompts, z, guidance, sampler)

    def log_prob(point: Tensor) -> Tensor:
        documents = [
            Document(key=prompt, segments=(*prompt_document(prompt).segments, Image()))
            for prompt in prompts
        ]
        return model.score(documents, point).log_prob

    clean = denoiser(sampled.x, model.latent.noise, log_prob)
    with torch.inference_mode():
        return Images(pixels=model.latent.decode(clean).clamp(-1, 1), work=sampled.work)


def sample_latents(
    model: GenerativeModel,
    prompts: Sequence[str],
    z: Float[Tensor, "m n d"],
    guidance: Guidance,
    sampler: Sampler,
) -> Sampled:
    """Sample noised latents of one image for each prompt.

    Args:
        model: The model.
        prompts: Captions.
        z: Standard normal noise.
        guidance: How conditional and null predictions are mixed.
        sampler: How positions are found.
    """
    if isinstance(model, TarFlow):
        return invert_stack(
            model.stack,
            z,
            sampler,
            context=model.condition(prompts),
            null_context=model.condition([None] * len(prompts)),
            guidance=guidance,
        )
    assert isinstance(model, Pretzel)
    documents = [prompt_document(prompt) for prompt in prompts]
    deep = sample_u(model, documents, z, guidance, sampler)
    shallow = invert_stack(model.shallow, deep.x, sampler, first=1)
    return Sampled(x=shallow.x, work=(*deep.work, *shallow.work))
