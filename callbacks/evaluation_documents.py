"""Interleaved documents of a split, such as edits, and modules that make their last image."""

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from lightning.pytorch import Trainer
from torch import Tensor

from callbacks.protocols import Generator, Split, datamodule_of, lacks
from pretzel.latent.generative_model import GenerativeModel
from pretzel.media.integers import IntegerArray
from pretzel.sequence.document import Document, Image, Text, Truth


@runtime_checkable
class EvaluationDocument(Protocol):
    """An interleaved document of the evaluation split, such as an edit."""

    @property
    def key(self) -> str:
        """Identifies the document."""

    @property
    def segments(self) -> Sequence[Text | Image]:
        """Runs of text and places of images, in reading order."""

    @property
    def images(self) -> Sequence[IntegerArray]:
        """The images in that order."""

    @property
    def truth(self) -> Truth:
        """Ground truth: plain values of JSON by name."""


@runtime_checkable
class HasEvaluationDocuments(Protocol):
    """A datamodule that can hand out the interleaved documents of its splits."""

    def evaluation_documents(
        self, split: Split = "test", limit: int | None = None
    ) -> Iterable[EvaluationDocument]:
        """Return the first ``limit`` documents of a split, or all, in a fixed order."""


@runtime_checkable
class DocumentGenerator(Generator, Protocol):
    """A module that makes the last image of documents, such as edits."""

    pretzel: GenerativeModel

    def sample_documents(
        self,
        documents: Sequence[Document],
        given: Sequence[Float[Tensor, "m ..."]],
        *,
        stream_key: Sequence[int | str],
    ) -> Float[Tensor, "n ..."]:
        """Generate the last image of each document in [-1, 1], behind the given ones before it."""


def evaluation_documents(
    trainer: Trainer, split: Split, needed_by: str
) -> Iterable[EvaluationDocument]:
    """Return the documents of a split of the run's datamodule, in order, on every rank.

    Raises:
        UserError: If it has none to give.
    """
    datamodule = datamodule_of(trainer)
    if not isinstance(datamodule, HasEvaluationDocuments):
        raise lacks(needed_by, "a datamodule with evaluation_documents(split)", datamodule)
    return datamodule.evaluation_documents(split)
