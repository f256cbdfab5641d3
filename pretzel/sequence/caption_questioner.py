"""The contract of questions about pictures of a caption, which the caption alone answers."""

from abc import ABC, abstractmethod
from typing import ClassVar


class CaptionQuestioner(ABC):
    """Asks what a picture of a caption shows, with the answers that are right if it is one.

    In the words of the questions that a model is trained on: others measure whether it understands
    them.
    """

    no_laws: ClassVar[str] = "any question serves; how much asking it gains is what is measured"

    @abstractmethod
    def __call__(self, caption: str) -> list[tuple[str, str]]:
        """Return questions and right answers; none of a caption that settles none."""
