"""Finds what is broken in shards: against their hashes, and by reading them."""

import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from datamodules.decoding.picture import PictureDecoder
from datamodules.reading.index import SUFFIX, read_index
from datamodules.reading.tar_shard import RawSample
from datamodules.sample import Skipped
from datamodules.sources.shards import Shards
from datamodules.sources.source import DataSource, Split
from datamodules.tools.hash_list import HASH_LIST, read_hashes, sha256_of
from datamodules.tools.progress import counting
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
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class _File:
    path: str
    sha256: str | None  # None if no list names it
    is_listed: bool = True  # False where there is a list, which does not name it
    source: DataSource | None = None  # reads it; None for a tar shard of any source


Verified = tuple[int, list[BrokenFile]]
"""How many files were checked, and those that are broken."""


def verify(paths: Iterable[str], num_workers: int = 0) -> Verified:
    """Check shards and what lies beside them.

    Files that a ``SHA256SUMS`` names are compared with it. A shard that differs, or that no list
    names, is read to its end and its samples are decoded.

    Args:
        paths: Folders, and shards with or without a list beside them.
        num_workers: Processes; 0 checks in this one.

    Raises:
        UserError: If there is nothing to check, or a path does not exist.
    """
    files = list(_files(paths))
    if not files:
        raise UserError(f"{' '.join(paths)}: holds neither {HASH_LIST} nor a tar shard")
    return _verify(files, num_workers)


def verify_source(source: DataSource, num_workers: int = 0) -> Verified:
    """Check all shards of a source, wherever they lie; local ones as :func:`verify` does.

    Raises:
        UserError: If a shard is missing.
    """
    files = []
    for shard in (shard for split in get_args(Split) for shard in source.shards(split)):
        is_local = Path(shard).is_file()
        listed = read_hashes(Path(shard).parent) if is_local else None
        files.append(_File(path=shard, sha256=(listed or {}).get(Path(shard).name), source=source))
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


def _files(paths: Iterable[str]) -> Iterator[_File]:
    """Yield what is to be checked; a folder may have lists in folders below it, too."""
    for name in paths:
        path = Path(name)
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
        if path.is_file():
            listed = (read_hashes(path.parent) or {}).get(path.name)
            yield _File(path=name, sha256=listed)
            continue
        listed_paths = set()
        has_list = False
        for hash_list in sorted(path.rglob(HASH_LIST)):
            has_list = True
            folder = hash_list.parent
            for file, sha256 in (read_hashes(folder) or {}).items():
                listed_paths.add(folder / file)
                yield _File(path=str(folder / file), sha256=sha256)
        for shard in shards_in(path):
            if shard not in listed_paths:
                yield _File(path=str(shard), sha256=None, is_listed=not has_list)


def _problem(file: _File) -> str | None:
    """Return what is wrong with a file, None if nothing is."""
    path = Path(file.path)
    if file.source is None and not path.is_file():
        return f"is in {HASH_LIST}, but missing"
    if file.sha256 is not None:
        try:
            digest = sha256_of(path)
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        if digest == file.sha256:
            return None
    inside = None
    if file.source is not None or path.name.endswith(TAR_SUFFIXES):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an index that is not of its shard, told below
            inside = _problem_inside(file.source or Shards(file.path), file.path)
    if file.sha256 is not None:
        return f"differs from its SHA-256; {inside or 'it is readable, but not what was hashed'}"
    if not file.is_listed:
        return f"is not in {HASH_LIST}{f'; {inside}' if inside else ''}"
    return inside


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
        return _problem_of_index(Path(shard))
    named = "; ".join(f"{one.key} ({one.detail or one.reason})" for one in damaged[:_NUM_NAMED])
    more = f"; and {len(damaged) - _NUM_NAMED} more" if len(damaged) > _NUM_NAMED else ""
    return f"{good} samples are whole, not: {named}{more}".replace("* (", "the rest (")


def _problem_of_index(path: Path) -> str | None:
    if not path.with_name(path.name + SUFFIX).exists():
        return None
    is_own = read_index(path) is not None
    return None if is_own else "is whole, but its index is not of this shard"


def holds_shards(path: str) -> bool:
    """Tell whether a path is a tar shard, or a folder with shards or a list of hashes."""
    place = Path(path)
    if place.is_dir():
        return bool(shards_in(place)) or any(place.rglob(HASH_LIST))
    return place.is_file() and path.endswith(TAR_SUFFIXES)
