"""Files of ``torch.save``: read without code, and refused where they are damaged."""

import re
import zipfile
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import torch

from pretzel.errors import UserError

# What zipfile raises where bytes of an archive are not what they were
_DAMAGE = (zipfile.BadZipFile, zlib.error, RuntimeError, OSError, EOFError, ValueError)


def read_torch(path: Path, map_location: Any = "cpu", *, mmap: bool = True) -> Any:  # noqa: ANN401
    """Return what a file holds: tensors and plain types.

    Args:
        path: The file.
        map_location: As for ``torch.load``.
        mmap: Whether tensors are read only when they are used: the file must stay until then.

    Raises:
        UserError: If more is in it, it is damaged, or it is no file of ``torch.save``.
    """
    if is_archive(path):
        _check_archive(path)
    else:
        mmap = False
    try:
        return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except Exception as error:  # torch raises half a dozen types, one for each kind of file
        raise refusal(path, error) from None


def is_archive(path: Path) -> bool:
    """Tell a file of ``torch.save`` from others, by its first bytes: its end may be damaged."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _check_archive(path: Path) -> None:
    """Refuse an archive of which a byte is not as it was written.

    It holds a CRC-32 of each tensor, which torch does not look at. A GB takes a second.
    """
    status = path.stat()
    _check_sums(path.resolve(), status.st_size, status.st_mtime_ns, str(path))


@cache  # by size and time of change: a command reads a checkpoint more than once
def _check_sums(path: Path, size: int, changed: int, name: str) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise UserError(f"{name}: not a file of torch.save (it is compressed)")
            damaged = archive.testzip()
    except UserError:
        raise
    except _DAMAGE as error:
        raise UserError(f"{name}: damaged ({' '.join(str(error).split())})") from error
    if damaged is not None:
        raise UserError(f"{name}: damaged: {damaged} in it does not have the checksum on record")


def refusal(path: str | Path, error: Exception) -> UserError:
    """Return what to tell of a file that torch refuses, without its advice to load it all the same.

    To be raised from None, since the error has that advice in it.
    """
    return UserError(f"{path}: not a weights-only checkpoint ({_reason(error)})")


def _reason(error: Exception) -> str:
    text = str(error)
    if code := re.search(r"GLOBAL (\S+)", text):
        return f"it names {code[1]}, and code in a checkpoint is never run"
    if isinstance(error, RuntimeError):
        return " ".join(text.split("\n", 1)[0].split())
    return "not a file of torch.save, or more than tensors and plain types is in it"
