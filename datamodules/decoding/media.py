"""Decodes the bytes of one image, video or sound into integers."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from datamodules.sample import Unusable
from pretzel.files.medium_error import MediumError
from pretzel.media.base import Medium
from pretzel.media.integers import IntegerArray


class MediaDecoder(ABC):
    """Decodes files of a medium, each into the integers of one item."""

    @property
    @abstractmethod
    def medium(self) -> Medium:
        """Kind and size of the items."""

    @property
    @abstractmethod
    def is_random(self) -> bool:
        """Whether training items are another in every epoch."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """All that equal bytes become equal items by."""

    @abstractmethod
    def __call__(self, data: bytes, draw: torch.Generator | None = None) -> IntegerArray:
        """Return the item that the bytes of a file hold.

        Args:
            data: Bytes of the file.
            draw: Random numbers of this item in training; None in evaluation.

        Raises:
            Unusable: If they hold none, or one that cannot serve.
        """


@final
@dataclass(frozen=True, kw_only=True)
class FileDecoder(MediaDecoder):
    """Decodes files as a medium reads them, the same in every epoch."""

    read_as: Medium

    is_random = False

    @property
    def medium(self) -> Medium:
        """The medium that reads them."""
        return self.read_as

    @property
    def identity(self) -> str:
        """That of the medium."""
        return self.read_as.identity

    def __call__(self, data: bytes, draw: torch.Generator | None = None) -> IntegerArray:
        """Return what the medium reads."""
        try:
            return self.read_as.read(data)
        except MediumError as error:
            raise Unusable(error.reason, str(error)) from error


@final
@dataclass(frozen=True, kw_only=True)
class NoDecoder(MediaDecoder):
    """Decodes nothing: for who wants documents, and does not look at what they show."""

    left_as: Medium

    is_random = False
    identity = ""

    @property
    def medium(self) -> Medium:
        """The medium that the files are of."""
        return self.left_as

    def __call__(self, data: bytes, draw: torch.Generator | None = None) -> IntegerArray:
        """Return an image without pixels."""
        return np.zeros((0, 0, 3), dtype=np.uint8)
