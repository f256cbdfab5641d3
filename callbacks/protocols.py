"""What the callbacks ask of a LightningModule and of a datamodule.

``pretzel.module.PretzelModule`` and the datamodules satisfy these; so can a user's own. They are
checked once, before training, by :func:`require`.
"""

from collections.abc import Sequence
from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from pretzel.errors import UserError
from pretzel.sequence import DocumentBatch


@runtime_checkable
class EvaluationSample(Protocol):
    """One image of the evaluation split with all that is known about it."""

    @property
    def key(self) -> str:
        """Identifies the sample."""

    @property
    def image(self) -> Float[Tensor, "3 height width"]:
        """Pixels in [-1, 1]."""

    @property
    def caption(self) -> str:
        """What the image shows."""

    @property
    def questions(self) -> Sequence[tuple[str, str]]:
        """Questions and answers."""


@runtime_checkable
class HasEvaluationSamples(Protocol):
    """A datamodule that can hand out its evaluation split as samples."""

    def evaluation_samples(self) -> Sequence[EvaluationSample]:
        """Return the samples of the evaluation split, in a fixed order."""


@runtime_checkable
class HasTrainingQuestions(Protocol):
    """A datamodule that can hand out the questions of its training split."""

    def training_questions(self) -> Sequence[tuple[str, str]]:
        """Return all (question, answer) pairs of the training split."""


@runtime_checkable
class Generator(Protocol):
    """A module that makes images from prompts."""

    @property
    def device(self) -> torch.device:
        """Where the module computes."""

    def sample(
        self, prompts: list[str], *, stream_key: tuple[int | str, ...]
    ) -> Float[Tensor, "n 3 height width"]:
        """Return one image in [-1, 1] a prompt, with the noise that belongs to the key."""


@runtime_checkable
class Answerer(Protocol):
    """A module that answers questions about images."""

    @property
    def device(self) -> torch.device:
        """Where the module computes."""

    @property
    def can_answer(self) -> bool:
        """Whether this configuration has an image-to-text direction at all."""

    def answer(
        self, images: Float[Tensor, "n 3 height width"], questions: list[str], keys: list[str]
    ) -> list[str]:
        """Return the greedy answers; ``keys`` name the samples, noise is keyed by them."""


class Likelihoods(Protocol):
    """Exact log-likelihoods of a batch of images."""

    @property
    def log_prob(self) -> Float[Tensor, " m"]:
        """Log-density of each image, in nats, with all constants."""

    @property
    def dims(self) -> int:
        """Number of dimensions of one image."""

    @property
    def noise_floor(self) -> float:
        """Differential entropy of the noise that was added, in nats per dimension."""


@runtime_checkable
class HasLikelihood(Protocol):
    """A module with the exact likelihood of what it trains on: noised latents."""

    def log_prob(self, batch: DocumentBatch) -> Likelihoods:
        """Return the log-density of the batch's noised images in the latent space."""


@runtime_checkable
class HasPixelLikelihood(Protocol):
    """A module whose latent space is pixels, so that bits per pixel dimension mean something."""

    @property
    def seed(self) -> int:
        """Seed of the run."""

    def pixel_log_prob(self, batch: DocumentBatch) -> Float[Tensor, " m"]:
        """Return the log-density (nats, pixels in [-1, 1]) of the images exactly as given.

        No noise is added, and nothing is rescaled without its Jacobian.

        Raises:
            UserError: If the module's latent space is not pixels.
        """


T = TypeVar("T")


def require(thing: object, protocol: type[T], needed_by: str, what: str) -> T:
    """Return ``thing`` if it satisfies ``protocol``.

    Raises:
        UserError: If it does not; the message names who needs what.
    """
    if not isinstance(thing, protocol):
        raise UserError(f"{needed_by} needs {what}, but {type(thing).__name__} has none")
    return thing
