"""Noised latents of a training batch, of which some were computed beforehand."""

from typing import Protocol, runtime_checkable

from pretzel.errors import UserError
from pretzel.latent.base import LatentSpace
from pretzel.latent.generative_model import GenerativeModel
from pretzel.media.base import Medium
from pretzel.media.pictures import Pictures
from pretzel.sequence.document import DocumentBatch
from pretzel.training.micro_batches import in_parts
from pretzel.typing import Float, Tensor


@runtime_checkable
class ReadsLatents(Protocol):
    """Data that can give latents in the place of training pictures."""

    def read_latents(self, latent: LatentSpace) -> str:
        """Read the latents of a space where they were computed; return how many, in words."""


@runtime_checkable
class HasMedium(Protocol):
    """Data that say of which kind and size their items are."""

    @property
    def medium(self) -> Medium:
        """Kind and size."""


def check_items(data: object, space: LatentSpace) -> None:
    """Refuse data of another kind or size of items than the latent space takes.

    Data that do not tell are refused with their first batch.

    Raises:
        UserError: Naming both.
    """
    if not isinstance(data, HasMedium) or data.medium.shape == space.medium.shape:
        return
    argument = "image_size" if isinstance(space.medium, Pictures) else "medium"
    raise UserError(
        f"{argument} of the data must be that of the latent space {type(space).__name__}, "
        f"{space.medium}, got {data.medium}"
    )


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
