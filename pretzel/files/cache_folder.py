"""The folder of what is computed once and may be deleted."""

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """Return ``pretzel/NAME`` in the user's cache, ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return root / "pretzel" / name
