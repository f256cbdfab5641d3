"""Conditions of a plain flow: the context of its blocks, made from the text of a document."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch

from pretzel.errors import UserError, did_you_mean
from pretzel.flow.block import FlowBlock
from pretzel.flow.context import ClassVector, Context


class Condition(ABC):
    """Turns texts into the context of conditioned blocks; it has nothing that trains.

    Attributes:
        reads_text: Whether it reads the texts; an unconditional model does not.
    """

    reads_text: bool = True

    @property
    @abstractmethod
    def identity(self) -> str:
        """Name, and a hash or list of everything that its contexts depend on."""

    def check(self, block: FlowBlock) -> None:
        """Refuse a block that cannot read all contexts of this condition; called by the model.

        Raises:
            UserError: Naming the condition and the block's limit.
        """
        return

    @abstractmethod
    def __call__(self, texts: Sequence[str | None], device: torch.device) -> Context | None:
        """Return the context of texts; a text of None has the null context of guidance.

        Args:
            texts: One for each row.
            device: Device of the context.
        """


class NoCondition(Condition):
    """No condition: the model is unconditional."""

    reads_text = False
    identity = "none"

    def __call__(self, texts: Sequence[str | None], device: torch.device) -> Context | None:
        """Return None."""
        return None


class ClassNames(Condition):
    """Labels of classes, of which each text names one.

    Args:
        names: Names in the order of the classes, or a file (UTF-8) with one a line.

    Raises:
        UserError: If there are none, one is blank, or two are the same.
    """

    def __init__(self, names: list[str] | Path) -> None:
        path = names if isinstance(names, Path) else None
        if isinstance(names, Path):
            if not names.is_file():
                raise UserError(f"names must be a list or a file with one name a line, got {names}")
            names = names.read_text(encoding="utf-8").splitlines()
        for number, name in enumerate(names, start=1):
            if not name.strip():
                place = f"number {number}" if path is None else f"line {number} of {path}"
                raise UserError(f"names must not be blank, got {name!r} at {place}")
        self.labels = {name: label for label, name in enumerate(names)}
        if not names or len(self.labels) != len(names):
            raise UserError(f"names must be different and at least one, got {len(names)} names")

    @property
    def identity(self) -> str:
        """The names."""
        return f"classes:{','.join(self.labels)}"

    def check(self, block: FlowBlock) -> None:
        """Refuse a block with fewer classes than there are names."""
        for part in block.modules():
            if isinstance(part, ClassVector) and part.num_classes < len(self.labels):
                raise UserError(
                    "num_classes must be at least the number of names of the condition ClassNames, "
                    f"{len(self.labels)} names, got {part.num_classes}"
                )

    def __call__(self, texts: Sequence[str | None], device: torch.device) -> Context | None:
        """Return labels, -1 for no text.

        Raises:
            UserError: If a text is no name.
        """
        for text in texts:
            if text is not None and text not in self.labels:
                raise UserError(
                    f"text must be the name of a class, got {text!r}"
                    f"{did_you_mean(text, self.labels)}"
                )
        return torch.tensor([-1 if t is None else self.labels[t] for t in texts], device=device)
