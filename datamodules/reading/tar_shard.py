"""Reads raw samples from shards; only members of a closed list of types are read."""

import tarfile
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import IO

from webdataset.gopen import Pipe

from datamodules.reading.archive import (
    DAMAGE,
    SUFFIXES,
    Archive,
    Members,
    archive_from,
    contents,
    decompressed,
    is_member,
    samples_of,
)
from datamodules.reading.index import Starts, known_starts
from datamodules.reading.opening import check_ended, open_shard
from datamodules.sample import Skipped, Unusable
from pretzel.errors import UserError


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

    Members of other types than images, sounds, text and JSON are skipped unread: no content of a
    shard is ever unpickled or run. A damaged archive ends with one ``Skipped`` in the place of the
    sample that it breaks off in; one without samples is one ``Skipped``, and so is a sample that
    is too large or has two members of one name. Local, uncompressed archives are sought
    (:mod:`datamodules.reading.index`), all others are read in sequence.

    Args:
        shard: Path or address.
        first: Number of the first sample.
        step: Distance of the next ones.
        opened: Opens it.
        images: Whether images and sounds are read.

    Raises:
        UserError: If the shard does not exist or cannot be reached.
    """
    with opened(shard) as file:
        starts = None if isinstance(file, Pipe) else known_starts(file)
        if starts is None or isinstance(file, Pipe):
            yield from islice(_in_sequence(shard, file, images), first, None, step)
        else:
            yield from _sought(shard, file, starts, first, step, images)


def _in_sequence(shard: str, file: IO[bytes] | Pipe, images: bool) -> Iterator[RawSample | Skipped]:
    is_empty = True
    try:
        with Archive.open(fileobj=decompressed(file), mode="r|") as archive:
            for _, key, members in samples_of(archive):
                is_empty = False
                yield _sample(shard, key, archive, members, images)
        if isinstance(file, Pipe):
            check_ended(file)
    except DAMAGE as error:
        yield _damaged(shard, error)
    else:
        if is_empty:
            yield _empty(shard)


def _sought(
    shard: str, file: IO[bytes], starts: Starts, number: int, step: int, images: bool
) -> Iterator[RawSample | Skipped]:
    while True:
        at, offset = begin = starts.before(number)
        try:
            archive = archive_from(file, offset)
            for start, key, members in samples_of(archive):
                starts.note(at, start)
                if at == number:
                    yield _sample(shard, key, archive, members, images)
                    number += step
                else:
                    deque(members, maxlen=0)  # it may be damaged
                at += 1
                if starts.before(number)[0] > at:
                    break
            else:
                if at == number == 0:
                    yield _empty(shard)
                return
        except DAMAGE as error:
            if at == begin[0] > 0:  # nothing is where a sample should begin
                starts.forget()
                continue
            if at == number:
                yield _damaged(shard, error)
            return


def _damaged(shard: str, error: Exception) -> Skipped:
    if isinstance(error, UserError):
        raise error
    return Skipped(shard=shard, key="*", reason="damaged", detail=str(error))


def _empty(shard: str) -> Skipped:
    detail = f"no member is one of {', '.join(sorted(SUFFIXES))}"
    return Skipped(shard=shard, key="*", reason="empty shard", detail=detail)


def _sample(
    shard: str, key: str, archive: tarfile.TarFile, members: Members, images: bool
) -> RawSample | Skipped:
    known: dict[str, bytes] = {}
    try:
        for suffix, content in contents(archive, members, images=images):
            if suffix in known:
                raise Unusable("name twice", f"two members are named {key}.{suffix}")
            known[suffix] = content
    except Unusable as fault:
        return fault.skipped(shard, key)
    known = {suffix: content for suffix, content in known.items() if is_member(suffix)}
    return RawSample(shard=shard, key=key, members=known)


@cache
def resident_shard(shard: str) -> tuple[RawSample | Skipped, ...]:
    """Return the samples of one shard, which stays in memory from then on (embedded data)."""
    return tuple(read_shard(shard))
