"""Files of weights with their SHA-256 beside them: a half-copied or altered one is found out."""

import hashlib
from pathlib import Path

from pretzel.errors import UserError
from pretzel.files.atomic import whole_file


def checked_sha256(path: Path, *, needs_hash: bool = False) -> str:
    """Return the SHA-256 of a file, after comparing it with ``NAME.sha256`` beside it, if any.

    Raises:
        UserError: If the file or a hash that it needs is missing, or they disagree.
    """
    if not path.is_file():
        raise UserError(f"weights: no file {path}")
    beside = _hash_file(path)
    if needs_hash and not beside.is_file():
        raise UserError(f"weights: no file {beside}, which holds the hash of {path.name}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    expected = beside.read_text().split()[0] if beside.is_file() else digest
    if digest != expected:
        raise UserError(f"weights: {path} has sha256 {digest}, but {beside.name} says {expected}")
    return digest


def save_sha256(path: Path) -> None:
    """Write the SHA-256 of a file beside it, ``NAME.sha256``."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with whole_file(_hash_file(path)) as partial:
        partial.write_text(f"{digest}\n")


def _hash_file(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")
