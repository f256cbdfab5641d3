"""Flips: mirror images of training pictures."""

from abc import ABC, abstractmethod
from typing import ClassVar, final

import torch
from PIL import Image, ImageOps

from datamodules.checks import check_probabilities


class Flip(ABC):
    """Mirrors or turns square training pictures by chance; evaluation sees them as they are.

    Captions stay what they are: where they tell left from right, or words are to be read, pictures
    must not be mirrored.

    Attributes:
        laws: Module of the laws of all flips.
    """

    laws: ClassVar[str] = "datamodules.laws"

    @abstractmethod
    def __call__(self, picture: Image.Image, draw: torch.Generator) -> Image.Image:
        """Return the picture, or another of its size; it is left as it is itself.

        Args:
            picture: Square RGB picture.
            draw: Random numbers that belong to this picture and epoch.
        """


@final
class HorizontalFlip(Flip):
    """Exchanges left and right with a probability.

    Args:
        probability: Share of the pictures that are mirrored.

    Raises:
        UserError: If it is no probability.
    """

    def __init__(self, probability: float = 0.5) -> None:
        check_probabilities(probability=probability)
        self.probability = probability

    def __call__(self, picture: Image.Image, draw: torch.Generator) -> Image.Image:
        """Return the picture or its mirror image."""
        is_mirrored = torch.rand((), generator=draw).item() < self.probability
        return ImageOps.mirror(picture) if is_mirrored else picture
