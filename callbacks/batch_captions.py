"""Captions of a training batch, for stages that learn from images and their captions."""

from pretzel.errors import UserError
from pretzel.sequence.document import DocumentBatch, Text


def captions_of(batch: DocumentBatch, needed_by: str) -> list[str]:
    """Return the caption of each image of a batch.

    Raises:
        UserError: If a document does not consist of one caption and one image.
    """
    captions = []
    for document in batch.documents:
        texts = [s.content for s in document.segments if isinstance(s, Text)]
        if len(texts) != 1 or document.num_images != 1:
            raise UserError(
                f"{needed_by} needs documents of one caption and one image, but "
                f"{document.key!r} has {len(texts)} texts and {document.num_images} images"
            )
        captions += texts
    return captions
