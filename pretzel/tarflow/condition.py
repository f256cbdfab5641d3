"""What a plain flow is conditioned on, made from the text of a document."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch

from pretzel.ablation.suggest import did_you_mean
from pretzel.errors import UserError
from pretzel.flow.context import Context


class Condition(ABC):
    """Turns texts into the context of conditioned blocks; nothing in it trains.

    Attributes:
        reads_text: Whether it reads them at all.
    """

    reads_text: bool = True

    @property
    @abstractmethod
    def identity(self) -> str:
        """Name and what determines its contexts."""

    @abstractmethod
    def __call__(self, texts: Sequence[str | None], device: torch.device) -> Context | None:
        """Return the context of texts; None stands for the null context of guidance.

        Args:
            texts: One for each row.
            device: Where the context is wanted.
        """


class NoCondition(Condition):
    """Unconditional."""

    reads_text = False

    @property
    def identity(self) -> str:
        """A name."""
        return "none"

    def __call__(self, texts: Sequence[str | None], device: torch.device) -> Context | None:
        """Return None."""
        return None


class ClassNames(Condition):
    """Each text is the name of a class.

    Args:
        names: Names in the order of the classes, or a file with one a line.

    Raises:
        UserError: If there are none, or two are the same.
    """

    def __init__(self, names: list[str] | Path) -> None:
        if isinstance(names, Path):
            if not names.is_file():
                raise UserError(f"names must be a list or a file with one name a line, got {names}")
            names = names.read_text().splitlines()
        self.labels = {name: label for label, name in enumerate(names)}
        if not names or len(self.labels) != len(names):
            raise UserError(f"names must be different and at least one, got {len(names)} names")

    @property
    def identity(self) -> str:
        """The names."""
        return f"classes:{','.join(self.labels)}"

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
