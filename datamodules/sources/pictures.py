"""Pictures of a folder, each with the files that belong to it."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from datamodules.reading.archive import (
    JSON_SUFFIX,
    MEDIA_SUFFIXES,
    TEXT_SUFFIX,
    check_size,
    unicode_name,
)
from datamodules.reading.tar_shard import RawSample
from datamodules.sample import Skipped, Unusable
from pretzel.errors import UserError
from pretzel.files.content_hash import file_hash


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureFiles:
    """The files of one sample, and what a table says of it.

    Attributes:
        key: Path of the picture in the folder, without its suffix.
        files: Suffix and path in the folder of each file.
        fields: The ``key.json`` of a sample of a table.
    """

    key: str
    files: tuple[tuple[str, str], ...]
    fields: bytes | None = None

    def read(self, shard: str, root: Path) -> RawSample | Skipped:
        """Return the bytes of the sample, or why there are none."""
        try:
            return RawSample(shard=shard, key=self.key, members=self._members(root))
        except Unusable as fault:
            return fault.skipped(shard, self.key)
        except OSError as error:
            detail = f"{error.filename!r}: {error.strerror}"
            return Skipped(shard=shard, key=self.key, reason="damaged", detail=detail)

    def texts(self) -> "PictureFiles":
        """Return the sample without its picture."""
        return replace(self, files=tuple(file for file in self.files if not _is_image(file)))

    def identity(self, root: Path) -> str:
        """Return key, texts and content hashes of the files."""
        hashes = []
        for suffix, path in self.files:
            try:
                hashes.append(f"{suffix} {file_hash(_inside(root, path))}")
            except (Unusable, OSError) as error:
                hashes.append(f"{suffix} {type(error).__name__}")
        return f"{self.key} {(self.fields or b'null').decode()} {' '.join(hashes)}"

    def _members(self, root: Path) -> dict[str, bytes]:
        members: dict[str, bytes] = {}
        size = 0
        for suffix, path in self.files:
            if suffix in members:
                raise Unusable("name twice", f"two files are named {self.key}.{suffix}")
            place = _inside(root, path)
            size += place.stat().st_size
            check_size(size)
            members[suffix] = place.read_bytes()
        if self.fields is not None:
            members[JSON_SUFFIX] = self.fields
        return members


def pictures_in(root: Path) -> list[PictureFiles]:
    """Return the pictures of a folder, and of all folders in it, in order of their keys.

    Raises:
        UserError: If one of the folders cannot be read.
    """
    by_key: dict[str, list[tuple[str, str]]] = {}
    for folder, folders, names in os.walk(root, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in sorted(names):
            stem, _, suffix = name.rpartition(".")
            file = suffix.lower(), (Path(folder) / name).relative_to(root).as_posix()
            known = _is_image(file) or file[0] in (TEXT_SUFFIX, JSON_SUFFIX)
            if known and not name.startswith("."):
                key = (Path(folder) / stem).relative_to(root).as_posix()
                by_key.setdefault(unicode_name(key), []).append(file)
    return [
        PictureFiles(key=key, files=tuple(files))
        for key, files in sorted(by_key.items())
        if any(map(_is_image, files))
    ]


def _is_image(file: tuple[str, str]) -> bool:
    return file[0] in MEDIA_SUFFIXES


def _refuse(error: OSError) -> None:
    raise UserError(f"folder {error.filename!r} cannot be read: {error.strerror}")


def _inside(root: Path, path: str) -> Path:
    """Return the place of a picture, which must be a file in the folder itself.

    Raises:
        Unusable: If there is no such file, or a link leads out of the folder.
    """
    try:
        place = (root / path).resolve()
    except (RuntimeError, ValueError):  # a link to itself, a path that no file system has
        place = root
    if not place.is_relative_to(root.resolve()):
        raise Unusable("no image", f"{path!r} is a link that leads out of {root}")
    if not place.is_file():
        raise Unusable("no image", f"there is no file {path!r} in {root}")
    return place
