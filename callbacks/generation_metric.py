"""Contract of a metric of generated images."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from pretzel.errors import UserError
from pretzel.media import Medium, Pictures
from pretzel.sequence.document import Truth


class GenerationMetric(ABC):
    """A metric of images, or items of another medium, generated from prompts.

    :class:`callbacks.generation.Generation` drives it on rank zero: :meth:`prepare` once before
    training, then for each evaluation :meth:`reset`, :meth:`update` batch by batch and
    :meth:`compute`.

    Attributes:
        laws: Module of the laws of all metrics.
        measures: The medium that is measured.
        reads_prompts: Whether values depend on the prompts.
    """

    laws: ClassVar[str] = "callbacks.laws"
    measures: ClassVar[type[Medium]] = Pictures
    reads_prompts: ClassVar[bool] = True

    @abstractmethod
    def prepare(self, device: torch.device) -> None:
        """Load what is needed and move it to ``device``; may be called again.

        Raises:
            UserError: If something cannot be had.
        """

    @abstractmethod
    def describe(self) -> str:
        """Return one line on what is measured, and with which networks."""

    def accepts(self, prompt: str) -> bool:
        """Return whether images of this prompt can be measured: by default, of any."""
        return True

    def own_prompts(self) -> list[str]:
        """Return prompts of which images are to be measured, for who names none; empty for any."""
        return []

    @abstractmethod
    def reset(self) -> None:
        """Forget all generated images."""

    @abstractmethod
    def update(self, images: Float[Tensor, "n ..."], prompts: Sequence[str]) -> None:
        """Take in generated images in [-1, 1] and the prompts they were made from."""

    def names(self) -> set[str] | None:
        """Return every name that :meth:`compute` may give a value; None if that is unknown."""
        return None

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Return the values by name, with the number of images they come from."""

    def image_scores(self) -> dict[str, list[float]]:
        """Return each image's own score, in order, by the names of those values that are means."""
        return {}

    def facts(self) -> dict[str, dict[str, Any]]:
        """Return, by name, the facts that comparable values share, beside the number of images."""
        return {}


class TruthMetric(GenerationMetric):
    """A metric that holds an image to the ground truth of the sample whose caption is its prompt.

    What the ground truth is, the data says: all fields of a sample's JSON that are neither captions
    nor questions.
    """

    @abstractmethod
    def example(self) -> tuple[str, Truth]:
        """Return a prompt and a ground truth that can be judged, by which the laws measure."""

    def accepts_truth(self, truth: Truth) -> bool:
        """Return whether images can be held to this ground truth: by default, if there is any."""
        return bool(truth)

    @abstractmethod
    def update_with_truth(
        self, images: Float[Tensor, "n ..."], prompts: Sequence[str], truths: Sequence[Truth]
    ) -> None:
        """Take in images as :meth:`update` does, and the ground truth that each is held to."""

    @final
    @override
    def update(self, images: Float[Tensor, "n ..."], prompts: Sequence[str]) -> None:
        raise UserError(
            f"{type(self).__name__} needs the ground truth of samples: call update_with_truth"
        )


class ReferenceMetric(GenerationMetric):
    """A metric that compares generated images with real ones.

    Attributes:
        higher_is_better: Whether images like the real ones have a larger first value.
    """

    reads_prompts: ClassVar[bool] = False
    higher_is_better: ClassVar[bool] = False

    @abstractmethod
    def reset_real(self) -> None:
        """Forget all real images."""

    @abstractmethod
    def update_real(self, images: Float[Tensor, "n ..."]) -> None:
        """Take in real images in [-1, 1]; they stay over :meth:`reset`."""

    def load_real(self, images: str) -> bool:
        """Take in the real images of this hash from a file; by default none is kept.

        Returns:
            Whether there was one.
        """
        return False

    def save_real(self, images: str) -> None:
        """Keep what was taken in of the real images of this hash; by default nothing."""
        return
