"""Documents: interleaved text and images, as a datamodule yields them.

A *document* is an ordered list of segments, each a run of text or one image. It knows nothing of
tokenizers or patches: the model packs documents into padded sequences
(:mod:`pretzel.sequence.packer`), so that arms with different vision-language models see the same
data.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pretzel.errors import UserError

Role = Literal["context", "target", "dropped"]
Truth = Mapping[str, Any]
"""Ground truth of a sample: plain values of JSON by name, empty where the data has none."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """A run of text.

    Attributes:
        content: The text itself.
        role: ``context`` is read but not predicted (captions of text-to-image, questions,
            requests); ``target`` is supervised by next-token prediction (answers); ``dropped``
            keeps its absolute positions but is not attended (caption dropout). The segments
            before it stay visible.
        tokens: Token ids of a text that a model has generated: tokenizing its content again may
            give others. None to tokenize the content.
    """

    content: str
    role: Role = "context"
    tokens: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Image:
    """Place of one image; its pixels are the next ones of the batch's ``images``."""


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """Dropped segments: neither attended nor modelled, but their positions are left free.

    Later segments keep the absolute positions that they would have had. Dropped images have no
    pixels in the batch.

    Attributes:
        segments: The segments that are dropped.
    """

    segments: tuple[Text | Image, ...]


Segment = Text | Image | Dropped


@dataclass(frozen=True, kw_only=True)
class Document:
    """One sample: segments in reading order.

    Attributes:
        key: Identifies the sample across epochs, processes and machines; noise is keyed by it.
        segments: Runs of text and images in reading order.
        truth: Ground truth of the sample, in evaluation; documents of training do without.
    """

    key: str
    segments: tuple[Segment, ...]
    truth: Truth = field(default_factory=dict, repr=False, hash=False)

    @property
    def num_images(self) -> int:
        """Number of images in the document, dropped ones not counted."""
        return sum(isinstance(segment, Image) for segment in self.segments)

    @property
    def text(self) -> str:
        """The text that is read, not predicted, in one string."""
        parts = (s.content for s in self.segments if isinstance(s, Text) and s.role == "context")
        return " ".join(parts)

    @property
    def prompt(self) -> str:
        """The text before the last image, in one string; all of :attr:`text` if none is there."""
        places = [i for i, segment in enumerate(self.segments) if isinstance(segment, Image)]
        before = replace(self, segments=self.segments[: places[-1]] if places else ())
        return before.text or self.text


@dataclass(frozen=True, kw_only=True)
class DocumentBatch:
    """A batch of documents, as it leaves the datamodule.

    Attributes:
        documents: One document a row.
        images: Pixels in [-1, 1] of all images, in order of appearance over rows, then segments;
            where there are latents, of those without.
        latents: Clean latents of images that were encoded beforehand, in that order. Training
            batches alone may have them.
        has_latents: Which of all images have them.
        part: Name of the part of the data that all documents of an evaluated batch are of, where
            it has several.
    """

    documents: tuple[Document, ...]
    images: Float[Tensor, "m ..."]
    latents: Float[Tensor, "k n d"] | None = None
    has_latents: Bool[Tensor, " i"] | None = None
    part: str | None = None

    def __len__(self) -> int:
        return len(self.documents)

    @property
    def num_images(self) -> int:
        """Number of images, with or without latents."""
        return len(self.images) if self.has_latents is None else len(self.has_latents)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "DocumentBatch":
        """Return the batch with its images on ``device``."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "DocumentBatch":
        """Return the batch with its images in pinned memory."""
        return self._each(Tensor.pin_memory)

    def _each(self, function: Callable[[Tensor], Tensor]) -> "DocumentBatch":
        latents, known = self.latents, self.has_latents
        return replace(
            self,
            images=function(self.images),
            latents=None if latents is None else function(latents),
            has_latents=None if known is None else function(known),
        )


def caption_document(caption: str, *, key: str = "", dropped: bool = False) -> Document:
    """Return the text-to-image document ``caption, image``."""
    text = Text(content=caption, role="dropped" if dropped else "context")
    return Document(key=key, segments=(text, Image()))


def question_document(pairs: Sequence[tuple[str, str]], *, key: str = "") -> Document:
    """Return the image-to-text document ``image, question, answer, question, answer, ...``."""
    return Document(key=key, segments=(Image(), *question_segments(pairs)))


def question_segments(pairs: Sequence[tuple[str, str]]) -> list[Text]:
    """Return questions, each with its answer as a target."""
    segments = []
    for question, answer in pairs:
        segments += [Text(content=question), Text(content=answer, role="target")]
    return segments


def without_past(document: Document, image: int) -> Document:
    """Return a document with everything before one of its images dropped.

    This is the null context of guidance, for the first image (number 0) and for any later one:
    begin-of-image attends to itself alone, at its absolute position.

    Raises:
        UserError: If the document has no such image.
    """
    places = [i for i, segment in enumerate(document.segments) if isinstance(segment, Image)]
    if not 0 <= image < len(places):
        raise UserError(
            f"image must be one of the {len(places)} images of document {document.key!r}, "
            f"counted from 0, got {image}"
        )
    past: list[Text | Image] = []
    for segment in document.segments[: places[image]]:
        past += segment.segments if isinstance(segment, Dropped) else (segment,)
    rest = document.segments[places[image] :]
    return replace(document, segments=(Dropped(segments=tuple(past)), *rest) if past else rest)
