"""``SHA256SUMS``: hashes of the files of a folder, in the form that ``sha256sum -c`` reads."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from pretzel.errors import UserError
from pretzel.files.atomic import write_text

HASH_LIST = "SHA256SUMS"
_PIECE = 2**20


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        OSError: If it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def write_hashes(folder: Path, hashes: Mapping[str, str]) -> None:
    """Write the list of a folder: hash by path within the folder."""
    lines = [f"{digest}  {name}\n" for name, digest in sorted(hashes.items())]
    write_text(folder / HASH_LIST, "".join(lines))


def read_hashes(folder: Path) -> dict[str, str] | None:
    """Return hash by path within the folder; None where the folder has no list.

    Raises:
        UserError: If a line is none of ``HASH  PATH``, or a path leads out of the folder.
    """
    path = folder / HASH_LIST
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    hashes = {}
    for number, line in enumerate(lines, start=1):
        digest, _, name = line.partition(" ")
        name = name.removeprefix(" ").removeprefix("*")  # `*`: how sha256sum marks binary files
        if len(digest) != 64 or not name:
            raise UserError(f"{path}:{number}: a line must be 'SHA256  PATH', got {line[:80]!r}")
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UserError(f"{path}:{number}: {name!r} leads out of the folder")
        hashes[name] = digest.lower()
    return hashes
