"""Images from latents, and one image for each of several prompts."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pretzel.generation.latents import sample_latents
from pretzel.latent.generative_model import GenerativeModel
from pretzel.sampling.denoisers import Denoiser
from pretzel.sampling.guidance import Guidance
from pretzel.sampling.samplers import Sampler, Work
from pretzel.sequence.document import Document, caption_document
from pretzel.typing import Float, Tensor


@dataclass(frozen=True, kw_only=True)
class GeneratedImages:
    """Images (or videos, sounds), clipped to [-1, 1], and the work of each block, in order."""

    pixels: Float[Tensor, "m ..."]
    work: tuple[Work, ...]


def sample_images(
    model: GenerativeModel,
    prompts: Sequence[str],
    z: Float[Tensor, "m n d"],
    guidance: Guidance,
    denoiser: Denoiser,
    sampler: Sampler,
) -> GeneratedImages:
    """Generate one image for each prompt, from standard normal noise z."""
    with torch.inference_mode():
        sampled = sample_latents(model, prompts, z, guidance, sampler)
    documents = [caption_document(prompt, key=prompt) for prompt in prompts]
    pixels = decode_images(model, documents, sampled.x, denoiser)
    return GeneratedImages(pixels=pixels, work=sampled.work)


def decode_images(
    model: GenerativeModel,
    documents: Sequence[Document],
    x: Float[Tensor, "b n d"],
    denoiser: Denoiser,
    earlier: Sequence[Float[Tensor, "b n d"]] = (),
) -> Float[Tensor, "b ..."]:
    """Return noised latents x as pixels, denoised, decoded and clipped to [-1, 1].

    Each document ends with its image: the score denoiser needs the density of the image given what
    stands before. ``earlier`` are the noised latents of the images before, in order.
    """

    def log_prob(point: Float[Tensor, "b n d"]) -> Float[Tensor, " b"]:
        # Latents made under inference mode cannot take part in a gradient; their copies can.
        images = torch.stack([*(latents.clone() for latents in earlier), point], dim=1)
        scores = model.score(documents, images.flatten(0, 1))
        return scores.log_prob.view(images.shape[:2])[:, -1]

    clean = denoiser(x, model.latent.noise, log_prob)
    with torch.inference_mode():
        return model.latent.decode(clean).clamp(-1, 1)
