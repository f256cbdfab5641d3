"""The contract of media: how files of one kind are read, and items of it shown and written."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image

from pretzel.errors import UserError
from pretzel.media.integers import IntegerArray
from pretzel.typing import Float, Tensor


class Medium(ABC):
    """A kind of media, of one size: pictures, videos or sounds.

    A model has *items*: tensors of :attr:`shape` in [-1, 1]. Files become items by way of integers
    (:mod:`pretzel.media.integers`), users get and give *outputs*, objects of one class.

    Attributes:
        suffixes: Ends of the names of files that are read; what is in them decides how.
        suffix: End of the names of files that are written.
        dtype: Type of the integers of an item, ``torch.uint8`` (pixels) or ``torch.int16`` (sound).
    """

    suffixes: ClassVar[tuple[str, ...]]
    suffix: ClassVar[str]
    dtype: ClassVar[torch.dtype]

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of an item."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """All that equal bytes become equal items by."""

    @abstractmethod
    def __str__(self) -> str:
        """Return the size of an item in words."""

    @abstractmethod
    def read(self, data: bytes) -> IntegerArray:
        """Return the integers of an item that the bytes of a file hold.

        Raises:
            MediumError: If they hold none, or one that cannot serve.
        """

    @abstractmethod
    def tensor(self, given: Any) -> Float[Tensor, "..."]:  # noqa: ANN401
        """Return what a user gives as an item, float32: an output, a tensor, or a path.

        Raises:
            UserError: If it is none of these, or cannot be made an item.
        """

    @abstractmethod
    def output(self, item: Float[Tensor, "..."]) -> Any:  # noqa: ANN401
        """Return an item, whose values may leave [-1, 1] a little, as users get it."""

    @abstractmethod
    def picture(self, output: Any) -> Image.Image:  # noqa: ANN401
        """Return a picture of it for a sheet; those of equal sizes have one size."""

    @abstractmethod
    def save(self, output: Any, path: Path) -> None:  # noqa: ANN401
        """Write a file that appears under its name only when it is complete."""

    def outputs(self, items: Float[Tensor, "n ..."]) -> list[Any]:
        """Return items as users get them."""
        return [self.output(item) for item in items]

    def tensors(self, given: Sequence[Any]) -> Float[Tensor, "n ..."]:
        """Return what a user gives as items; errors as of :meth:`tensor`."""
        return torch.stack([self.tensor(one) for one in given])


def check_item(medium: Medium, item: Tensor, name: str) -> Float[Tensor, "..."]:
    """Return a tensor that a user gives as an item, on the CPU and float32.

    Raises:
        UserError: If it has another shape, or no floats in [-1, 1].
    """
    if item.shape != medium.shape or not item.dtype.is_floating_point:
        raise UserError(
            f"{name} must be a tensor {list(medium.shape)} of floats, got {list(item.shape)} of "
            f"{item.dtype}"
        )
    if not bool((item.abs() <= 1.001).all()):  # rounding is forgiven
        raise UserError(f"{name} must hold values in [-1, 1], got {item.abs().max():.4g}")
    return item.detach().to("cpu", torch.float32)
