"""Noised latents of a training batch, of which some were computed beforehand."""

from typing import Protocol, runtime_checkable

from pretzel.latent.base import LatentSpace
from pretzel.latent.generative_model import GenerativeModel
from pretzel.sequence.document import DocumentBatch
from pretzel.training.micro_batches import in_parts
from pretzel.typing import Float, Tensor


@runtime_checkable
class ReadsLatents(Protocol):
    """Data that can give latents in the place of training pictures."""

    def read_latents(self, latent: LatentSpace) -> str:
        """Read the latents of a space where they were computed; return how many, in words."""


def noised_latents(
    model: GenerativeModel, batch: DocumentBatch, noise: Float[Tensor, "m n d"], size: int | None
) -> Float[Tensor, "m n d"]:
    """Return the latents of a batch's images with Gaussian noise of std sigma_n added.

    Those that the batch has are taken, the others encoded, ``size`` images at a time.
    """
    if batch.latents is None or batch.has_latents is None:
        return in_parts(model.encode, size, batch.images, noise)
    known = batch.has_latents
    if not len(batch.images):
        return batch.latents.to(noise) + model.latent.noise * noise
    x = model.latent.noise * noise
    x[known] += batch.latents.to(noise)
    x[~known] = in_parts(model.encode, size, batch.images, noise[~known])
    return x
