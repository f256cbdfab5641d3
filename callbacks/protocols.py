"""Protocols of the LightningModules and datamodules that callbacks work with.

``pretzel.training.PretzelModule`` and the datamodules satisfy these; so can a user's own. Callbacks
check them in ``setup``, before anything trains.
"""

from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from pretzel.errors import NothingToMeasure, UserError
from pretzel.media.base import Medium
from pretzel.sequence.document import DocumentBatch, Truth

Split = Literal["train", "val", "test"]


@runtime_checkable
class SampleTexts(Protocol):
    """Texts about one image of a split, without the image."""

    @property
    def key(self) -> str:
        """Identifies the sample."""

    @property
    def caption(self) -> str:
        """Description of the image."""

    @property
    def questions(self) -> Sequence[tuple[str, str]]:
        """Questions and answers."""


@runtime_checkable
class EvaluationSample(SampleTexts, Protocol):
    """One image of the evaluation split with all that is known about it."""

    @property
    def image(self) -> Float[Tensor, "..."]:
        """Pixels in [-1, 1]."""


@runtime_checkable
class HasCaptions(Protocol):
    """A sample that knows all captions of its image, not one alone."""

    @property
    def captions(self) -> Sequence[str]:
        """All descriptions of the image; empty where ``caption`` is all there is."""


@runtime_checkable
class HasAllAnswers(Protocol):
    """A sample that knows what all people answered, not the target alone."""

    @property
    def answers(self) -> Sequence[Sequence[str]]:
        """All answers to each of its questions; empty where the targets are all there is."""


@runtime_checkable
class HasQuestionTypes(Protocol):
    """A sample whose data names kinds of questions and answers."""

    @property
    def answer_types(self) -> Sequence[str]:
        """Kind of answer of each of its questions, or an empty text; empty where none has one."""

    @property
    def question_types(self) -> Sequence[str]:
        """Kind of each of its questions, likewise."""


@runtime_checkable
class HasChoices(Protocol):
    """A sample whose questions are multiple choice."""

    @property
    def choices(self) -> Sequence[Sequence[str]]:
        """Texts that each of its questions may be answered with; empty where none has any."""


@runtime_checkable
class HasTruth(Protocol):
    """A sample whose data says more of it than texts."""

    @property
    def truth(self) -> Truth:
        """Ground truth: plain values of JSON by name."""


@runtime_checkable
class HasEvaluationSamples(Protocol):
    """A datamodule that can hand out its splits as samples."""

    def evaluation_samples(
        self, split: Split = "test", limit: int | None = None
    ) -> Iterable[EvaluationSample]:
        """Return the first ``limit`` samples of a split, or all, in a fixed order."""


@runtime_checkable
class IdentifiesImages(Protocol):
    """A datamodule that knows what the images of its splits depend on."""

    def images_identity(self, split: Split) -> str:
        """Return a hash of it: equal ones have equal images. Empty where it is not known."""


@runtime_checkable
class HasEvaluationTexts(Protocol):
    """A datamodule that decodes only those images that are asked for."""

    def evaluation_texts(
        self, split: Split = "test", limit: int | None = None
    ) -> Iterable[SampleTexts]:
        """Return the texts of the first ``limit`` samples of a split, or of all, in their order."""

    def chosen_samples(self, split: Split, keys: Collection[str]) -> Iterable[EvaluationSample]:
        """Return the samples of a split that have these keys, in their order."""


@runtime_checkable
class HasSuite(Protocol):
    """A datamodule whose questions may be those of a published suite."""

    @property
    def suite(self) -> str:
        """The suite and the files that it was read from; empty if it is none."""


@runtime_checkable
class Generator(Protocol):
    """A module that makes images from prompts."""

    @property
    def device(self) -> torch.device:
        """Where the module computes."""

    @property
    def medium(self) -> Medium:
        """Kind and size of what it makes."""

    def sample(
        self, prompts: list[str], *, stream_key: tuple[int | str, ...]
    ) -> Float[Tensor, "n ..."]:
        """Return one image in [-1, 1] a prompt, with the noise that belongs to the key."""


@runtime_checkable
class HasPrompts(Protocol):
    """A module whose images have prompts of their own: they have been made already."""

    @property
    def prompts(self) -> list[str]:
        """Prompt of each image, empty where none is known."""


@runtime_checkable
class ImageToText(Protocol):
    """A module that may have an image-to-text direction."""

    @property
    def device(self) -> torch.device:
        """Where the module computes."""

    @property
    def can_answer(self) -> bool:
        """Whether this configuration has an image-to-text direction at all."""


@runtime_checkable
class Answerer(ImageToText, Protocol):
    """A module that answers questions about images."""

    def answer(
        self, images: Float[Tensor, "n ..."], questions: list[str], keys: list[str]
    ) -> list[str]:
        """Return the greedy answers; ``keys`` name the samples, noise is keyed by them."""


@runtime_checkable
class Describer(ImageToText, Protocol):
    """A module that describes images."""

    def describe(
        self, images: Float[Tensor, "n ..."], keys: list[str], *, request: str, max_tokens: int
    ) -> list[str]:
        """Return the greedy text behind each image and a request, which may be empty."""


@runtime_checkable
class ChoiceScorer(ImageToText, Protocol):
    """A module that knows how likely given answers to questions about images are."""

    def choice_log_probs(
        self,
        images: Float[Tensor, "n ..."],
        questions: list[str],
        keys: list[str],
        choices: list[str],
        *,
        per_token: bool,
    ) -> Float[Tensor, "n c"]:
        """Return the log-probability of each choice as the answer to each question, in nats.

        It is the sum over the tokens of the choice and the one that ends it, or their mean.
        """


@runtime_checkable
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
    """A module with the exact likelihood of what it trains on: noised latents.

    Where its evaluation step returns a mapping with ``likelihood``, that is not computed once more.
    """

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


def lacks(needed_by: str, what: str, thing: object) -> UserError:
    """Return the error to raise when ``thing`` does not have what a callback needs."""
    return UserError(f"{needed_by} needs {what}, but {type(thing).__name__} is not one")


def datamodule_of(trainer: Trainer) -> object:
    """Return the run's datamodule, or None."""
    datamodule: object = trainer.datamodule  # type: ignore[attr-defined]  # set by a connector
    return datamodule


def evaluation_samples(
    trainer: Trainer, split: Split, needed_by: str
) -> Iterable[EvaluationSample]:
    """Return the samples of a split of the run's datamodule, in order, on every rank.

    Raises:
        UserError: If it has none to give.
    """
    datamodule = datamodule_of(trainer)
    if not isinstance(datamodule, HasEvaluationSamples):
        raise lacks(needed_by, "a datamodule with evaluation_samples(split)", datamodule)
    return datamodule.evaluation_samples(split)


def images_identity(trainer: Trainer, split: Split) -> str:
    """Return a hash of what the images of a split depend on; empty where it is not known."""
    datamodule = datamodule_of(trainer)
    return datamodule.images_identity(split) if isinstance(datamodule, IdentifiesImages) else ""


def evaluation_texts(
    trainer: Trainer, split: Split, needed_by: str, limit: int | None = None
) -> Iterable[SampleTexts]:
    """Return the texts of the first samples of a split, or of all, in order, on every rank.

    Images are decoded only where the datamodule has no ``evaluation_texts``. Those of some of the
    samples may turn out to be damaged: :func:`chosen_samples` leaves them out.

    Raises:
        UserError: If the run's datamodule has no samples to give.
    """
    datamodule = datamodule_of(trainer)
    if isinstance(datamodule, HasEvaluationTexts):
        return datamodule.evaluation_texts(split, limit)
    return islice(evaluation_samples(trainer, split, needed_by), limit)


def chosen_samples(
    trainer: Trainer, split: Split, keys: Collection[str], needed_by: str
) -> Iterable[EvaluationSample]:
    """Return the samples that have these keys, in order; other images are not decoded.

    Raises:
        UserError: If the run's datamodule has no samples to give.
    """
    datamodule = datamodule_of(trainer)
    if isinstance(datamodule, HasEvaluationTexts):
        return datamodule.chosen_samples(split, keys)
    samples = evaluation_samples(trainer, split, needed_by)
    return (sample for sample in samples if sample.key in keys)


def suite_of(trainer: Trainer) -> str:
    """Return the published suite that the run's datamodule asks, empty if it is none."""
    datamodule = datamodule_of(trainer)
    return datamodule.suite if isinstance(datamodule, HasSuite) else ""


def require_questions(trainer: Trainer, split: Split, needed_by: str) -> None:
    """Refuse a split whose samples have no questions.

    Raises:
        NothingToMeasure: If that is so.
        UserError: If the datamodule has no samples to give.
    """
    if not any(sample.questions for sample in evaluation_texts(trainer, split, needed_by)):
        raise NothingToMeasure(f"{needed_by} needs questions, but the {split} samples have none")


def generator_of(module: LightningModule, needed_by: str) -> Generator:
    """Return the module as one that makes images.

    Raises:
        UserError: If it is not one.
    """
    if not isinstance(module, Generator):
        raise lacks(needed_by, "a module with sample(prompts, stream_key) and a medium", module)
    return module
