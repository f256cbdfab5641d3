"""Modules that generate images and answer questions about them."""

from typing import Protocol, runtime_checkable

from lightning.pytorch import LightningModule

from callbacks.protocols import lacks
from pretzel.generation.conversation_batch import SamplingModule


@runtime_checkable
class ImageGenerator(SamplingModule, Protocol):
    """A module that generates and answers, as :class:`pretzel.training.PretzelModule`."""

    def check_denoiser(self) -> None:
        """Refuse a denoiser that was not trained with the flow."""


def image_generator(module: LightningModule, owner: str) -> ImageGenerator | None:
    """Return the module; None for one that has no image-to-text.

    Raises:
        UserError: If it generates no images, naming the callback that needs it.
    """
    can_answer = getattr(module, "can_answer", None)
    if can_answer is False:
        return None
    if can_answer is None or not isinstance(module, ImageGenerator):
        what = "a module with can_answer, check_denoiser() and what it samples with"
        raise lacks(owner, what, module)
    return module
