"""The contract of generative models, for the training module, callbacks and samplers."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from pretzel.flow.precision import at_least_float32
from pretzel.flow.transforms import Transform
from pretzel.latent.base import LatentSpace
from pretzel.rng import stream
from pretzel.sequence.document import Document, DocumentBatch
from pretzel.typing import Float, Tensor

LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True, kw_only=True)
class ImageLikelihood:
    """Exact log-likelihood of noised latents.

    Attributes:
        log_prob: Natural logarithm of the density of each image that the model models, all
            constants included.
        dims: Dimensions of one image.
        noise_floor: Entropy of the added noise in nats per dimension: no model of the noised data
            can have a mean negative log-likelihood per dimension below it.
        unit: Space in which it is a density, for example ``Pixels 32 px, noise 0.05``.
    """

    log_prob: Float[Tensor, " m"]
    dims: int
    noise_floor: float
    unit: str


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Likelihoods of a batch, as the losses take them.

    Attributes:
        z: Noise that each image maps to, in raster order.
        u: Output of the shallow flow.
        log_prob: Log-density of each noised latent, in nats; empty where text alone is scored.
        token_nll: Negative log-likelihood of every supervised token, in nats.
    """

    z: Float[Tensor, "m n d"]
    u: Float[Tensor, "m n d"]
    log_prob: Float[Tensor, " i"]
    token_nll: Float[Tensor, " k"]


@runtime_checkable
class FrozenPart(Protocol):
    """A part that never trains: a checkpoint has its identity in the place of its weights."""

    @property
    def identity(self) -> str:
        """Name and content hash."""


class GenerativeModel(nn.Module, ABC):
    """A model of images in a latent space, perhaps conditioned on text, perhaps predicting text.

    Attributes:
        latent: Space in which images are modelled, with its noise; frozen.
        reads_text: Whether images are conditioned on the text before them.
        answers: Whether text after an image can be predicted.
    """

    latent: LatentSpace
    reads_text: bool
    answers: bool

    @property
    @abstractmethod
    def frozen(self) -> Mapping[str, FrozenPart]:
        """The parts that never train and are left out of checkpoints, by attribute name."""

    @property
    @abstractmethod
    def guided_transforms(self) -> Sequence[Transform]:
        """The transforms whose conditionals guidance mixes."""

    @abstractmethod
    def score(self, documents: Sequence[Document], x: Float[Tensor, "m n d"]) -> Scores:
        """Return the likelihoods of noised latents and of supervised tokens.

        Args:
            documents: Documents in whose order the images come.
            x: Noised latents of all images, those that the model ignores included.

        Raises:
            UserError: If the documents do not hold ``m`` images.
        """

    def view(self, document: Document) -> Document:
        """Return the part of a document that is modelled: all of it, if nothing else is said."""
        return document

    @property
    def device(self) -> torch.device:
        """Device of the weights that train."""
        return self._weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the weights that train; that of latents and noise."""
        return self._weight.dtype

    @property
    def _weight(self) -> Tensor:
        """A trainable parameter that stands for all of them."""
        return next(p for p in self.parameters() if p.requires_grad)

    def encode(
        self, images: Float[Tensor, "m ..."], noise: Float[Tensor, "m n d"]
    ) -> Float[Tensor, "m n d"]:
        """Return the latents of images with Gaussian noise of std sigma_n added.

        Autocast is off: latents are those that are computed beforehand (``pretzel data embed``).
        """
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            return self.latent.encode(images) + self.latent.noise * noise

    def noise(self, num_images: int, *key: int | str) -> Float[Tensor, "m n d"]:
        """Return the standard normal noise of a stream, on the device of the model."""
        shape = (num_images, self.latent.num_positions, self.latent.channels)
        return torch.randn(shape, generator=stream(*key)).to(self.device, self.dtype)

    def sample_noise(self, keys: Sequence[str], *purpose: int | str) -> Float[Tensor, "m n d"]:
        """Return noise keyed by sample, the same in every batch that holds the sample."""
        rows = [self.noise(1, *purpose, key) for key in keys]
        return torch.cat(rows) if rows else self.noise(0, *purpose)

    def forward(self, batch: DocumentBatch, noise: Float[Tensor, "m n d"]) -> Scores:
        """Return the likelihoods of all images and of all supervised tokens.

        Args:
            batch: Documents with their images.
            noise: Standard normal noise for the latents.

        Raises:
            UserError: If the documents do not hold as many images as the batch.
        """
        return self.score(batch.documents, self.encode(batch.images, noise))

    def log_prob(self, batch: DocumentBatch, noise: Float[Tensor, "m n d"]) -> ImageLikelihood:
        """Return the exact log-likelihood of the noised images given the text before them."""
        sigma = self.latent.noise
        floor = 0.5 * (LOG_2PI + 1) + math.log(sigma) if sigma > 0 else -math.inf
        return ImageLikelihood(
            log_prob=self.score(batch.documents, self.encode(batch.images, noise)).log_prob,
            dims=self.latent.dims,
            noise_floor=floor,
            unit=(
                f"{type(self.latent).__name__} {self.latent.medium}, "
                f"{self.latent.dims} dims, noise {sigma}"
            ),
        )


def normal_log_prob(z: Float[Tensor, "m n d"]) -> Float[Tensor, " m"]:
    """Return the log-density of each sample under N(0, I), in nats, float32 at least."""
    z = z.to(at_least_float32(z))
    return -0.5 * (z.square() + LOG_2PI).sum(dim=(1, 2))
