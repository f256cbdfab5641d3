"""Shortens values of data for messages."""

import reprlib

_LONGEST = 80
_REPR = reprlib.Repr()  # neither a megabyte nor a thousand levels are written out to be cut
_REPR.maxstring = _REPR.maxother = _LONGEST


def excerpt(value: object) -> str:
    """Return a value in one line of at most 80 characters."""
    text = " ".join(_REPR.repr(value).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
