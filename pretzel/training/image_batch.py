"""Images of a training batch, for the stages that train on images alone."""

from pretzel.errors import UserError
from pretzel.sequence.document import DocumentBatch
from pretzel.typing import Float, Tensor


def images_of(batch: DocumentBatch) -> Float[Tensor, "m ..."]:
    """Return the images of a batch, at least one.

    Raises:
        UserError: If it has none.
    """
    if len(batch.images) == 0:
        raise UserError(
            "a stage that trains on images needs some in every batch, got one of "
            f"{len(batch)} documents without images"
        )
    return batch.images
