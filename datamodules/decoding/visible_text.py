"""Texts that say something."""


def visible(text: str) -> str:
    """Return a text without space around it; an empty one if none of its characters can be seen.

    A zero-width space or a NUL is a caption that no tokenizer sees.
    """
    return text.strip() if any(c.isprintable() and not c.isspace() for c in text) else ""
