"""The last image of each of several documents, behind all that stands before it.

So a picture is edited: image, instruction, image. Documents may differ in length and in the number
of their images; those of one number go through the model together.
"""

from collections.abc import Sequence

import torch

from pretzel.errors import UserError
from pretzel.generation.conversation_batch import (
    ConversationBatch,
    SamplingModule,
    conversations_with,
)
from pretzel.generation.images import GeneratedImages, sample_images
from pretzel.latent.generative_model import GenerativeModel
from pretzel.model import Pretzel
from pretzel.sequence.document import Document, Image, Text
from pretzel.typing import Float, Tensor


def last_images(
    module: SamplingModule,
    documents: Sequence[Document],
    given: Sequence[Float[Tensor, "m ..."]],
    z: Float[Tensor, "b n d"],
    *,
    seed: int | None = None,
) -> GeneratedImages:
    """Generate the last image of each document; one that has none gets an image of its text.

    Answers before it are read as the model would have written them, and texts behind it are not
    read.

    Args:
        module: The model, and how it samples.
        documents: The documents.
        given: The images before the last of each, in [-1, 1]; their noise is named by the key.
        z: Standard normal noise of the images that are generated.
        seed: Seed of the noise of given images; None for the module's.

    Returns:
        The images, in order, and the work of those that were generated together last.

    Raises:
        UserError: If the model does not model images behind others, where there are some.
    """
    for document in documents:
        require_given_images(module.pretzel, document)
    counts = [len(images) for images in given]
    pixels: dict[int, Tensor] = {}
    for count in sorted(set(counts)):
        rows = [row for row, own in enumerate(counts) if own == count]
        some = [documents[row] for row in rows]
        if count:
            shown = torch.stack([given[row] for row in rows], dim=1)
            generated = _behind_images(module, some, shown, z[rows], seed)
        else:
            prompts = [document.prompt for document in some]
            generated = sample_images(
                module.pretzel, prompts, z[rows], module.guidance, module.denoiser, module.sampler
            )
        pixels |= zip(rows, generated.pixels, strict=True)
    stacked = torch.stack([pixels[row] for row in range(len(documents))])
    return GeneratedImages(pixels=stacked, work=generated.work)


def require_given_images(model: GenerativeModel, document: Document) -> None:
    """Refuse a document with images that the model does not see.

    Raises:
        UserError: Naming model, document and number of images.
    """
    if document.num_images < 2:
        return
    if not isinstance(model, Pretzel):
        name, why = type(model).__name__, "reads texts alone"
    elif model.view(document).num_images < document.num_images:
        name, why = type(model.interleaving).__name__, "models no image behind another one"
    else:
        return
    raise UserError(
        f"{name} {why}, so it cannot edit: a document must have at most one image, got "
        f"{document.num_images} in {document.key!r}"
    )


def require_edits(model: GenerativeModel) -> None:
    """Refuse a model that does not model an image behind another one.

    Raises:
        UserError: Naming it.
    """
    require_given_images(model, Document(key="an edit", segments=(Image(), Image())))


def _behind_images(
    module: SamplingModule,
    documents: Sequence[Document],
    shown: Float[Tensor, "g b ..."],
    z: Float[Tensor, "b n d"],
    seed: int | None,
) -> GeneratedImages:
    """Generate an image behind as many given ones in each document."""
    model = module.pretzel
    assert isinstance(model, Pretzel)
    texts = [_texts_between(document, len(shown) + 1) for document in documents]
    columns = list(zip(*texts, strict=True))
    counts = [max(len(model.packer.ids_behind(own)) for own in column) for column in columns]
    length = sum(counts) + len(columns) * (model.latent.num_positions + 2)
    keys = [document.key for document in documents]
    batch: ConversationBatch = conversations_with(module, keys, seed=seed, max_length=length)
    for column, images in zip(columns, (*shown, None), strict=True):
        batch.read(column)
        if images is not None:
            batch.show(images)
    pixels = batch.generate(z)
    return GeneratedImages(pixels=pixels, work=batch.latents[-1].work)


def _texts_between(document: Document, num_images: int) -> list[list[Text]]:
    """Return the texts before each image of a document."""
    texts: list[list[Text]] = [[]]
    for segment in document.segments:
        if isinstance(segment, Image):
            texts.append([])
        elif isinstance(segment, Text) and segment.role != "dropped":
            texts[-1].append(segment)
    return texts[:num_images]
