"""Parts of each kind, broken in one subtle way each, with the law that must catch it."""

from collections.abc import Callable
from typing import NamedTuple


class Broken(NamedTuple):
    """A broken part.

    Attributes:
        part: Builds it.
        original: Builds the same without the mistake; obeys the law.
        law: Name of the law that must catch it.
    """

    part: Callable[[], object]
    original: Callable[[], object]
    law: str
