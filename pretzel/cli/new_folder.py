"""Folders that a command writes into, new or empty."""

import os
from pathlib import Path

from pretzel.errors import UserError


def new_folder(out: Path | None, default: str) -> Path:
    """Return a folder that holds nothing yet; it is made by who writes into it.

    Args:
        out: The folder; None for the first ``<default>/run-N`` that is not there.
        default: Folder in the working directory.

    Raises:
        UserError: If it is not empty, or cannot be written.
    """
    if out is None:
        number = 0
        while Path(default, f"run-{number}").exists():
            number += 1
        out = Path(default, f"run-{number}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out must be a new or empty folder, got {out}, which is not")
    existing = next(part for part in (out.absolute(), *out.absolute().parents) if part.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise UserError(f"--out: {out}: cannot be written, because {existing} cannot")
    return out
