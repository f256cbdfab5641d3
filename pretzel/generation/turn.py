"""Turns of a conversation, those that were taken and those of a script; needs no torch."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One turn of a conversation.

    Attributes:
        kind: ``say`` or ``answer`` with a text, ``image`` or ``generate`` with a picture; in a
            script also ``continue``, and what the model makes is still empty.
        text: The text.
        picture: The picture, or object of another medium, that was shown or generated.
    """

    kind: str
    text: str = ""
    picture: Any = None
