"""Walks over tar archives: their samples and where these begin, only of a closed list of types."""

import tarfile
from collections.abc import Iterator
from itertools import groupby
from typing import IO

from typing_extensions import override
from webdataset.gopen import Pipe
from webdataset.tariterators import base_plus_ext

from pretzel.files.image_file import IMAGE_SUFFIXES

TEXT_SUFFIX = "txt"
JSON_SUFFIX = "json"
SUFFIXES = frozenset({*IMAGE_SUFFIXES, TEXT_SUFFIX, JSON_SUFFIX})


class StrictTarInfo(tarfile.TarInfo):
    """Header of a member; an archive without its end mark is an error, unlike in Python's own.

    Otherwise a shard that was cut between two members would look complete, and its last sample
    like one without a caption.
    """

    @override
    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "StrictTarInfo":
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the end mark
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError("the archive is cut off or damaged") from error


def samples_in_sequence(
    stream: IO[bytes] | Pipe, *, images: bool
) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """Yield the samples of an archive, compressed or not, that is read once.

    Args:
        stream: The archive.
        images: Whether the contents of images are read; they are left out otherwise.

    Yields:
        Key of the sample, and suffixes and contents of its members.

    Raises:
        tarfile.TarError, zlib.error, EOFError, OSError, ValueError: Where it is damaged.
    """
    with tarfile.open(fileobj=stream, mode="r|*", tarinfo=StrictTarInfo) as archive:
        members = (
            (key, suffix, _content(archive, member) if images or not _is_image(suffix) else None)
            for key, suffix, member in _members(archive)
        )
        for key, group in groupby(members, lambda member: member[0]):
            yield key, [(suffix, content) for _, suffix, content in group if content is not None]


def samples_from(
    file: IO[bytes], offset: int
) -> Iterator[tuple[int, str, tarfile.TarFile, list[tuple[str, tarfile.TarInfo]]]]:
    """Yield the samples of an uncompressed archive that begin at or behind an offset.

    Only headers are read.

    Yields:
        Offset of the sample, its key, the archive, and suffixes and headers of its members.

    Raises:
        tarfile.TarError, OSError, ValueError: Where it is damaged.
    """
    file.seek(offset)
    archive = tarfile.TarFile(fileobj=file, mode="r", tarinfo=StrictTarInfo)
    for key, group in groupby(_members(archive), lambda member: member[0]):
        headers = [(suffix, header) for _, suffix, header in group]
        yield headers[0][1].offset, key, archive, headers


def contents(
    archive: tarfile.TarFile, members: list[tuple[str, tarfile.TarInfo]], *, images: bool
) -> list[tuple[str, bytes]]:
    """Read members of an archive, images where they are wanted."""
    return [
        (suffix, _content(archive, member))
        for suffix, member in members
        if images or not _is_image(suffix)
    ]


def is_member(suffix: str) -> bool:
    """Tell whether a suffix is that of a member of a sample."""
    return suffix in SUFFIXES or _is_image(suffix)


def _members(archive: tarfile.TarFile) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Yield key, lower-case suffix and header of members of the closed list."""
    while (member := archive.next()) is not None:
        key, suffix = base_plus_ext(member.name)
        if key and member.isreg() and suffix.rpartition(".")[2].lower() in SUFFIXES:
            yield key, suffix.lower(), member
        # Otherwise tarfile keeps the headers of the whole shard in memory.
        archive.members = []  # type: ignore[attr-defined]


def _is_image(suffix: str) -> bool:
    return suffix.rpartition(".")[2] in IMAGE_SUFFIXES


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = archive.extractfile(member)
    assert content is not None  # a regular file
    return content.read()
