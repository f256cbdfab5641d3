"""One image behind each prompt: the deep stream's part of text-to-image."""

from collections.abc import Sequence

from pretzel.errors import UserError
from pretzel.generation.drawing import StreamInversion
from pretzel.generation.session import Session
from pretzel.model import Pretzel
from pretzel.sampling.guidance import Guidance
from pretzel.sampling.samplers import Sampler
from pretzel.sampling.stack import Sampled
from pretzel.sequence.document import Document, Text
from pretzel.typing import Float, Tensor

__all__ = ["StreamInversion", "prompt_document", "prompted", "sample_u"]


def prompt_document(prompt: str, *, dropped: bool = False) -> Document:
    """Return the document of a prompt; ``dropped`` for the null context of guidance."""
    text = Text(content=prompt, role="dropped" if dropped else "context")
    return Document(key=prompt, segments=(text,))


def prompted(model: Pretzel, documents: Sequence[Document]) -> Session:
    """Return a session that has read prompts, with room for one image.

    Args:
        model: The model.
        documents: Text alone.

    Raises:
        UserError: If a document holds an image.
    """
    texts = []
    for document in documents:
        if document.num_images:
            raise UserError(f"prompt {document.key!r} must be text alone, got one with an image")
        texts.append([segment for segment in document.segments if isinstance(segment, Text)])
    ids = model.packer.token_ids
    width = max(sum(len(ids(text)) + (text.role == "target") for text in row) for row in texts)
    session = Session(model, len(documents), width + 1 + model.latent.num_positions)
    session.read(texts)
    return session


def sample_u(
    model: Pretzel,
    documents: Sequence[Document],
    z: Float[Tensor, "b n d"],
    guidance: Guidance,
    sampler: Sampler | None = None,
) -> Sampled:
    """Sample u of one image for each prompt, each position committed once.

    Args:
        model: The model.
        documents: Prompts.
        z: Standard normal noise.
        guidance: How the branches are mixed; the null branch's prompts are dropped.
        sampler: How positions are found; None for one after the other.

    Raises:
        UserError: If guidance is asked for with a transform that is not affine.
    """
    return prompted(model, documents).draw_u(z, guidance, sampler)
