"""Finds what is broken in shards: against their hashes, and by reading them."""

import sys
import tarfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from datamodules.decoding.picture import PictureDecoder
from datamodules.reading.archive import archive_from, samples_of
from datamodules.reading.index import SUFFIX, read_index
from datamodules.reading.tar_shard import RawSample
from datamodules.sample import Skipped
from datamodules.sources.shards import Shards
from datamodules.sources.source import DataSource
from datamodules.tools.cards import plain
from datamodules.tools.hash_list import HASH_LIST, read_hashes, sha256_of
from datamodules.tools.packed_folder import SPLITS, unfinished_folders
from datamodules.tools.progress_bar import counting
from datamodules.tools.worker_pool import map_in_order
from pretzel.errors import UserError

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_NUM_NAMED = 3  # samples of one shard


@dataclass(frozen=True, kw_only=True)
class BrokenFile:
    """A file that is not what it should be."""

    path: str
    reason: str

    def __str__(self) -> str:
        return plain(f"{self.path}: {self.reason}")  # which holds keys of anybody's archives


@dataclass(frozen=True, kw_only=True)
class _File:
    path: str
    sha256: str | None = None  # None if no list names it
    is_listed: bool = True  # False where there is a list, which does not name it
    source: DataSource | None = None  # reads it; None for a tar shard of any source


_HashesOf = Callable[[Path], Mapping[str, str] | None]
"""Returns hash by name of the files of a folder, None where it has no list."""

Verified = tuple[int, list[BrokenFile]]
"""How many files were checked, and those that are broken."""


def verify(paths: Sequence[str], num_workers: int = 0) -> Verified:
    """Check shards and what lies beside them.

    Files that a ``SHA256SUMS`` names are compared with it. A shard that differs, or that no list
    names, is read to its end and its samples are decoded. A folder that ``pack`` has not completed
    is broken.

    Args:
        paths: Folders, and shards with or without a list beside them.
        num_workers: Processes; 0 checks in this one.

    Raises:
        UserError: If there is nothing to check, or a path does not exist.
    """
    hashes_of = cache(read_hashes)
    files = [file for path in paths for file in _files(Path(path), hashes_of)]
    if not files:
        raise UserError(f"{' '.join(paths)}: holds neither {HASH_LIST} nor a tar shard")
    number, broken = _verify(files, num_workers)
    unfinished = [
        BrokenFile(path=str(folder), reason="pack has not completed it; the same command continues")
        for path in paths
        for folder in unfinished_folders(Path(path))
    ]
    return number + len(unfinished), [*broken, *unfinished]


def verify_sources(sources: Iterable[DataSource], num_workers: int = 0) -> Verified:
    """Check all shards of sources, wherever they lie; local ones as :func:`verify` does.

    Raises:
        UserError: If a shard is missing.
    """
    hashes_of = cache(read_hashes)
    files = [
        _file(Path(shard), hashes_of, source)
        if Path(shard).is_file()
        else _File(path=shard, source=source)
        for source in sources
        for split in SPLITS
        for shard in source.shards(split)
    ]
    return _verify(files, num_workers)


def _verify(files: list[_File], num_workers: int) -> Verified:
    broken = []
    with counting("files", len(files)) as advance:
        for file, reason in map_in_order(_problem, files, num_workers):
            advance(1)
            if reason is not None:
                broken.append(BrokenFile(path=file.path, reason=reason))
    return len(files), broken


def shards_in(folder: Path) -> list[Path]:
    """Return the tar shards in a folder and below it, in order."""
    return sorted(path for path in folder.rglob("*") if path.name.endswith(TAR_SUFFIXES))


def _files(path: Path, hashes_of: _HashesOf) -> Iterator[_File]:
    """Yield what is to be checked; a folder may have lists in folders below it, too."""
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if path.is_file():
        yield _file(path, hashes_of)
        return
    listed = set()
    hash_lists = sorted(path.rglob(HASH_LIST))
    for folder in (hash_list.parent for hash_list in hash_lists):
        for file, sha256 in (hashes_of(folder) or {}).items():
            listed.add(folder / file)
            yield _File(path=str(folder / file), sha256=sha256)
    for shard in shards_in(path):
        if shard not in listed:
            yield _File(path=str(shard), is_listed=not hash_lists)


def _file(path: Path, hashes_of: _HashesOf, source: DataSource | None = None) -> _File:
    """Return a file with its hash in the list beside it, if there is one."""
    hashes = hashes_of(path.parent)
    sha256 = (hashes or {}).get(path.name)
    is_listed = hashes is None or sha256 is not None
    return _File(path=str(path), sha256=sha256, is_listed=is_listed, source=source)


def _problem(file: _File) -> str | None:
    """Return what is wrong with a file, None if nothing is."""
    path = Path(file.path)
    if file.source is None and not path.is_file():
        return f"is in {HASH_LIST}, but missing"
    try:
        is_whole = file.sha256 is not None and sha256_of(path) == file.sha256
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    inside = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an index that is not of its shard, reported below
        if not is_whole and (file.source is not None or path.name.endswith(TAR_SUFFIXES)):
            inside = _problem_inside(file.source or Shards(file.path), file.path)
        inside = inside or _problem_of_index(path)
    if is_whole or (file.sha256 is None and file.is_listed):
        return inside
    if file.sha256 is None:
        return f"is not in {HASH_LIST}{f'; {inside}' if inside else ''}"
    return f"differs from its SHA-256; {inside or 'it is readable, but not what was hashed'}"


def _problem_inside(source: DataSource, shard: str) -> str | None:
    """Read a shard to its end; return what is wrong with it or its samples."""
    pictures = PictureDecoder(image_size=1, upscale=True)
    decode = source.decoder(pictures, max_characters=sys.maxsize)
    good, damaged = 0, list[Skipped]()
    try:
        for raw in source.read(shard):
            sample = decode(raw) if isinstance(raw, RawSample) else raw
            if isinstance(sample, Skipped):
                damaged.append(sample)
            else:
                good += 1
    except UserError as error:
        return str(error)
    if not damaged:
        return None
    named = "; ".join(f"{one.key} ({one.detail or one.reason})" for one in damaged[:_NUM_NAMED])
    more = f"; and {len(damaged) - _NUM_NAMED} more" if len(damaged) > _NUM_NAMED else ""
    return f"{good} samples are whole, not: {named}{more}".replace("* (", "the rest (")


def _problem_of_index(path: Path) -> str | None:
    """Return what is wrong with the index of a whole shard."""
    if not path.with_name(path.name + SUFFIX).exists():
        return None
    known = read_index(path)
    try:
        with path.open("rb") as file:
            begins = [offset for offset, *_ in samples_of(archive_from(file, 0))]
    except (tarfile.TarError, OSError, ValueError) as error:
        return f"has an index, but cannot be read ({error})"
    is_own = known is not None and list(known) == [0, *begins[1:]]
    return None if is_own else "is whole, but its index is not of this shard"


def holds_shards(path: str) -> bool:
    """Tell whether a path is a tar shard, or a folder with shards or a list of hashes."""
    place = Path(path)
    if place.is_dir():
        return bool(shards_in(place)) or any(place.rglob(HASH_LIST))
    return place.is_file() and path.endswith(TAR_SUFFIXES)
