"""Reads raw samples from shards; only members of a closed list of types are read."""

import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import IO

from webdataset.gopen import Pipe

from datamodules.reading.archive import (
    SUFFIXES,
    contents,
    is_member,
    samples_from,
    samples_in_sequence,
)
from datamodules.reading.index import Starts, known_starts
from datamodules.reading.opening import open_shard
from datamodules.sample import Skipped
from pretzel.errors import UserError

_DAMAGE = (tarfile.TarError, zlib.error, EOFError, OSError, ValueError)


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
    two members of one name. Local, uncompressed archives are sought
    (:mod:`datamodules.reading.index`), all others are read in sequence.

    Args:
        shard: Path or address.
        first: Number of the first sample.
        step: Distance of the next ones.
        opened: Opens it.
        images: Whether image members are read.

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
        for key, members in samples_in_sequence(file, images=images):
            is_empty = False
            yield _sample(shard, key, members)
    except _DAMAGE as error:
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
            for start, key, archive, members in samples_from(file, offset):
                starts.note(at, start)
                if at == number:
                    yield _sample(shard, key, contents(archive, members, images=images))
                    number += step
                at += 1
                if starts.before(number)[0] > at:
                    break
            else:
                if at == number == 0:
                    yield _empty(shard)
                return
        except _DAMAGE as error:
            if at == begin[0] > 0:  # nothing is where a sample should begin
                starts.forget()
                continue
            if at == number:
                yield _damaged(shard, error)
            return


def _damaged(shard: str, error: Exception) -> Skipped:
    if isinstance(error, UserError):
        raise error
    detail = str(error.args[0] if error.args else error)
    return Skipped(shard=shard, key="*", reason="damaged", detail=detail)


def _empty(shard: str) -> Skipped:
    detail = f"no member is one of {', '.join(sorted(SUFFIXES))}"
    return Skipped(shard=shard, key="*", reason="empty shard", detail=detail)


def _sample(shard: str, key: str, members: list[tuple[str, bytes]]) -> RawSample | Skipped:
    known: dict[str, bytes] = {}
    for suffix, content in members:
        if suffix in known:
            detail = f"two members are named {key}.{suffix}"
            return Skipped(shard=shard, key=key, reason="name twice", detail=detail)
        known[suffix] = content
    known = {suffix: content for suffix, content in known.items() if is_member(suffix)}
    return RawSample(shard=shard, key=key, members=known)


@cache
def resident_shard(shard: str) -> tuple[RawSample | Skipped, ...]:
    """Return the samples of one shard, which stays in memory from then on (embedded data)."""
    return tuple(read_shard(shard))
