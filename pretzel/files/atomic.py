"""Text and JSON files that are written whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any

from pretzel.errors import UserError


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        UserError: If the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{path}: cannot be written ({reason})") from error


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(values, indent=1, default=str) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the values of a JSON file; None if it is missing or damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None
