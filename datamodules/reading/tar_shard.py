"""Reads raw samples from shards; only members of a closed list of types are read."""

import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import IO

from webdataset.gopen import Pipe
from webdataset.tariterators import group_by_keys

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
) -> Iterator[RawSample | Skipped]:
    """Yield the samples ``first``, ``first + step``, ... of one shard, in order of the archive.

    Members of other types than images, text and JSON are skipped unread: no content of a shard is
    ever unpickled or run. A damaged archive ends with one ``Skipped`` in the place of the
    sample that it breaks off in; one without samples is one ``Skipped``.

    Args:
        shard: Path or address.
        first: Number of the first sample.
        step: Distance of the next ones.
        opened: Opens it.

    Raises:
        UserError: If the shard does not exist or cannot be reached.
    """
    return islice(_samples(shard, opened), first, None, step)


def _samples(
    shard: str, opened: Callable[[str], IO[bytes] | Pipe]
) -> Iterator[RawSample | Skipped]:
    empty = True
    try:
        with opened(shard) as stream:
            for sample in group_by_keys(_members(shard, stream)):
                empty = False
                yield RawSample(
                    shard=shard,
                    key=sample["__key__"],
                    members={name: sample[name] for name in sample if _is_member(name)},
                )
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


def _members(shard: str, stream: IO[bytes] | Pipe) -> Iterator[dict[str, str | bytes]]:
    with tarfile.open(fileobj=stream, mode="r|*", tarinfo=_StrictTarInfo) as archive:
        for member in archive:
            if member.isreg() and _is_readable(member.name):
                content = archive.extractfile(member)
                assert content is not None  # a regular file
                yield {"fname": member.name, "data": content.read(), "__url__": shard}
            # Otherwise tarfile keeps the headers of the whole shard in memory.
            archive.members = []  # type: ignore[attr-defined]


def _is_member(suffix: str) -> bool:
    return suffix in _SUFFIXES or suffix.rpartition(".")[2] in IMAGE_SUFFIXES


def _is_readable(name: str) -> bool:
    return name.rpartition(".")[2].lower() in _SUFFIXES
