"""Walks over tar archives: their samples and where these begin, only of a closed list of types."""

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, groupby
from typing import IO, Any

from typing_extensions import override
from webdataset.gopen import Pipe
from webdataset.tariterators import base_plus_ext

from datamodules.sample import Unusable
from pretzel.files.image_file import IMAGE_SUFFIXES
from pretzel.files.sound_file import SOUND_SUFFIXES

TEXT_SUFFIX = "txt"
JSON_SUFFIX = "json"
MEDIA_SUFFIXES = (*IMAGE_SUFFIXES, *SOUND_SUFFIXES)
SUFFIXES = frozenset({*MEDIA_SUFFIXES, TEXT_SUFFIX, JSON_SUFFIX})

MAX_SAMPLE_BYTES = 2**30
"""Bytes of a sample's files beyond which it cannot serve: nothing of that size is read."""

COMPRESSED: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
"""Readers of compressed files by the bytes that these begin with."""

DAMAGE = (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError)
"""Errors that reading a damaged archive raises."""

_LONGEST_NAME = 2**16  # bytes of a header that only holds a name or attributes: they are read whole
_LARGEST_MEMBER = 2**37  # bytes: Python looks for its end in pieces, also behind that of the file
_NAMES = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)

Members = Iterable[tuple[str, tarfile.TarInfo]]
"""Suffixes and headers of the members of a sample."""


class _StrictTarInfo(tarfile.TarInfo):
    """Header of a member, read more strictly than by Python's own class.

    An archive without its end mark is an error: a shard that was cut between two members would look
    complete, and its last sample like one without a caption. So are headers that lead back or
    without end, or that would fill memory or stack.
    """

    @override
    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_StrictTarInfo":
        assert isinstance(archive, Archive)
        try:
            member = super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the end mark
            archive.is_behind_end_mark = True
            raise
        except (tarfile.HeaderError, RecursionError) as error:
            is_empty = isinstance(error, tarfile.EmptyHeaderError)  # type: ignore[attr-defined]
            if is_empty and archive.is_behind_end_mark:
                raise
            raise _cut_or_damaged() from error
        archive.is_behind_end_mark = False
        if member.size < 0 or not 0 < archive.offset - member.offset < _LARGEST_MEMBER:
            raise _cut_or_damaged()
        return member

    def _proc_member(self, archive: tarfile.TarFile) -> "_StrictTarInfo":  # overrides Python's own
        if self.type in _NAMES and not 0 <= self.size <= _LONGEST_NAME:
            raise _cut_or_damaged()
        member: _StrictTarInfo = super()._proc_member(archive)  # type: ignore[misc]
        return member


class Archive(tarfile.TarFile):
    """A tar archive, or several one behind the other (``cat a.tar b.tar``), read strictly.

    Attributes:
        is_behind_end_mark: Whether nothing has come since an end mark.
    """

    tarinfo = _StrictTarInfo
    ignore_zeros = True  # an end mark is the end only where nothing follows
    is_behind_end_mark = False


def decompressed(file: IO[bytes] | Pipe) -> Any:  # noqa: ANN401  # the libraries' types differ
    """Return what a file that was just opened holds, all parts of it where it is compressed."""
    buffer: Any = file.stream if isinstance(file, Pipe) else file
    head = buffer.peek(6)
    return next((read(file) for mark, read in COMPRESSED.items() if head.startswith(mark)), file)


def archive_from(file: IO[bytes], offset: int) -> tarfile.TarFile:
    """Open an uncompressed archive at the offset of a member.

    Raises:
        tarfile.TarError, OSError, ValueError: Where it is damaged.
    """
    file.seek(offset)
    return Archive(fileobj=file, mode="r")


def samples_of(archive: tarfile.TarFile) -> Iterator[tuple[int, str, Members]]:
    """Yield the samples of an open archive; their contents are left unread.

    Yields:
        Offset of the sample, its key and its members, to be used before the next sample is.

    Raises:
        One of DAMAGE: Where it is damaged.
    """
    for key, group in groupby(_members(archive), lambda member: member[0]):
        first = next(group)
        members = ((suffix, header) for _, suffix, header in chain((first,), group))
        yield first[2].offset, key, members


def contents(
    archive: tarfile.TarFile, members: Members, *, images: bool
) -> list[tuple[str, bytes]]:
    """Return suffixes and contents of the members of a sample, images where they are wanted.

    Raises:
        Unusable: If they are larger than :data:`MAX_SAMPLE_BYTES`.
    """
    files = []
    size = 0
    for suffix, member in members:
        if images or not _is_medium(suffix):
            size += member.size
            if size <= MAX_SAMPLE_BYTES:
                files.append((suffix, _content(archive, member)))
    check_size(size)
    return files


def check_size(num_bytes: int) -> None:
    """Refuse a sample whose files would fill the memory.

    Raises:
        Unusable: If they are larger than :data:`MAX_SAMPLE_BYTES`.
    """
    if num_bytes > MAX_SAMPLE_BYTES:
        raise Unusable("too large", f"files of {num_bytes} bytes, more than {MAX_SAMPLE_BYTES}")


def unicode_name(name: str) -> str:
    """Return the name of a file in which bytes that are no UTF-8 are written out."""
    return name.encode(errors="backslashreplace").decode()


def is_member(suffix: str) -> bool:
    """Tell whether a suffix is that of a member of a sample."""
    return suffix in SUFFIXES or _is_medium(suffix)


def _members(archive: tarfile.TarFile) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Yield key, lower-case suffix and header of members of the closed list."""
    while (member := archive.next()) is not None:
        key, suffix = base_plus_ext(unicode_name(member.name))
        if key and member.isreg() and suffix.rpartition(".")[2].lower() in SUFFIXES:
            yield key, suffix.lower(), member
        # Otherwise tarfile keeps the headers of the whole shard in memory.
        archive.members = []  # type: ignore[attr-defined]


def _is_medium(suffix: str) -> bool:
    return suffix.rpartition(".")[2] in MEDIA_SUFFIXES


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = archive.extractfile(member)
    assert content is not None  # a regular file
    return content.read()


def _cut_or_damaged() -> tarfile.ReadError:
    return tarfile.ReadError("the archive is cut off or damaged")
