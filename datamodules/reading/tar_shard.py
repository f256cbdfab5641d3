"""Reads raw samples from shards; only members of a closed list of types are read."""

import io
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby, islice
from operator import itemgetter
from typing import IO, Any

from webdataset.gopen import Pipe
from webdataset.tariterators import base_plus_ext

from datamodules.reading.opening import open_shard
from datamodules.sample import Skipped
from pretzel.errors import UserError
from pretzel.files.image_file import IMAGE_SUFFIXES

TEXT_SUFFIX = "txt"
JSON_SUFFIX = "json"
_SUFFIXES = frozenset({*IMAGE_SUFFIXES, TEXT_SUFFIX, JSON_SUFFIX})


@dataclass(frozen=True, kw_only=True)
class RawSample:
    """The undecoded members of one sample.

    Attributes:
        shard: Path or address of the shard.
        key: Common part of the members' names.
        members: Bytes by lower-case suffix, the name behind its first dot. The suffix of an image
            may begin with a name (``0.jpg``).
    """

    shard: str
    key: str
    members: dict[str, bytes]


def read_shard(
    shard: str,
    first: int = 0,
    step: int = 1,
    opened: Callable[[str], IO[bytes] | Pipe] = open_shard,
    images: bool = True,
) -> Iterator[RawSample | Skipped]:
    """Yield the samples ``first``, ``first + step``, ... of one shard, in order of the archive.

    Members of other types than images, text and JSON are skipped unread: no content of a shard is
    ever unpickled or run. A damaged archive ends with one ``Skipped`` in the place of the
    sample that it breaks off in; one without samples is one ``Skipped``, and so is a sample with
    two members of one name.

    Args:
        shard: Path or address.
        first: Number of the first sample.
        step: Distance of the next ones.
        opened: Opens it.
        images: Whether image members are read.

    Raises:
        UserError: If the shard does not exist or cannot be reached.
    """
    return islice(_samples(shard, opened, images), first, None, step)


def _samples(
    shard: str, opened: Callable[[str], IO[bytes] | Pipe], images: bool
) -> Iterator[RawSample | Skipped]:
    empty = True
    try:
        with opened(shard) as stream:
            for key, members in groupby(_members(stream, images), itemgetter(0)):
                sample = _sample(shard, key, members)
                empty = False
                yield sample
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        yield Skipped(
            shard=shard,
            key="*",
            reason="damaged",
            detail=str(error.args[0] if error.args else error),
        )
        return
    if empty:
        detail = f"no member is one of {', '.join(sorted(_SUFFIXES))}"
        yield Skipped(shard=shard, key="*", reason="empty shard", detail=detail)


def _sample(shard: str, key: str, members: Iterator[tuple[str, str, bytes]]) -> RawSample | Skipped:
    contents: dict[str, bytes] = {}
    twice = None
    for _, suffix, content in members:
        twice = suffix if suffix in contents else twice
        contents[suffix] = content
    if twice is not None:
        detail = f"two members are named {key}.{twice}"
        return Skipped(shard=shard, key=key, reason="name twice", detail=detail)
    known = {suffix: contents[suffix] for suffix in contents if _is_member(suffix)}
    return RawSample(shard=shard, key=key, members=known)


@cache
def resident_shard(shard: str) -> tuple[RawSample | Skipped, ...]:
    """Return the samples of one shard, which stays in memory from then on (embedded data)."""
    return tuple(read_shard(shard))


class _StrictTarInfo(tarfile.TarInfo):
    """Header of a member; an archive without its end mark is an error, unlike in Python's own.

    Otherwise a shard that was cut between two members would look complete, and its last sample
    like one without a caption.
    """

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_StrictTarInfo":
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the end mark
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError("the archive is cut off or damaged") from error


def _members(stream: IO[bytes] | Pipe, images: bool) -> Iterator[tuple[str, str, bytes]]:
    """Yield key, suffix and content of the members of closed types."""
    # Images of a local file are left out by seeking; all else is read in sequence.
    seeks = not images and isinstance(stream, io.BufferedReader) and stream.seekable()
    mode: Any = "r:*" if seeks else "r|*"
    with tarfile.open(fileobj=stream, mode=mode, tarinfo=_StrictTarInfo) as archive:
        for member in archive:
            key, suffix = base_plus_ext(member.name)
            if key and member.isreg() and _is_readable(suffix, images):
                content = archive.extractfile(member)
                assert content is not None  # a regular file
                yield key, suffix.lower(), content.read()
            # Otherwise tarfile keeps the headers of the whole shard in memory.
            archive.members = []  # type: ignore[attr-defined]


def _is_member(suffix: str) -> bool:
    return suffix in _SUFFIXES or suffix.rpartition(".")[2] in IMAGE_SUFFIXES


def _is_readable(suffix: str, images: bool) -> bool:
    last = suffix.rpartition(".")[2].lower()
    return last in _SUFFIXES and (images or last not in IMAGE_SUFFIXES)
