"""Writes the indexes of shards, by which training goes to a sample without reading up to it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from datamodules.reading.index import is_compressed, write_index
from datamodules.tools.progress_bar import counting
from datamodules.tools.worker_pool import map_in_order
from pretzel.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Indexed:
    """Outcome of :func:`write_indexes`.

    Attributes:
        num_written: Indexes that were written.
        num_sequential: Shards that have none: they are compressed or not local.
        failures: Why others could not be indexed.
    """

    num_written: int
    num_sequential: int
    failures: tuple[str, ...]


def write_indexes(shards: Iterable[str], num_workers: int = 0) -> Indexed:
    """Write ``NAME.tar.index`` beside every shard that is local and not compressed."""
    names = list(dict.fromkeys(shards))
    local = [name for name in names if _can_be_sought(Path(name))]
    failures = []
    with counting("shards", len(local)) as advance:
        for _, failure in map_in_order(_index, local, num_workers):
            advance(1)
            if failure is not None:
                failures.append(failure)
    return Indexed(
        num_written=len(local) - len(failures),
        num_sequential=len(names) - len(local),
        failures=tuple(failures),
    )


def _can_be_sought(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return not is_compressed(file)
    except OSError:  # an address
        return False


def _index(shard: str) -> str | None:
    """Write the index of a shard; return why that cannot be."""
    try:
        write_index(shard)
    except UserError as error:
        return str(error)
    return None
