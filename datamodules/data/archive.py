"""Writes tar shards with the same bytes on every machine: without times, owners or paths."""

import gzip
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Record:
    """One sample as it is written to a shard.

    Attributes:
        key: File name without suffix.
        image: Encoded image.
        suffix: Format of the image: ``png`` or ``webp``.
        annotation: Content of ``key.json``.
    """

    key: str
    image: bytes
    suffix: str
    annotation: dict[str, object]


def write_shards(
    folder: Path, split: str, records: Sequence[Record], num_shards: int
) -> list[Path]:
    """Write consecutive runs of records, equally long within one, as gzip-compressed tar shards.

    Args:
        folder: Folder of the shards; created if it does not exist.
        split: First part of the file names.
        records: Samples in the order in which they are read.
        num_shards: Number of files.

    Returns:
        The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for shard in range(num_shards):
        first = shard * len(records) // num_shards
        last = (shard + 1) * len(records) // num_shards
        paths.append(folder / f"{split}-{shard:05d}.tar.gz")
        paths[-1].write_bytes(_archive(records[first:last]))
    return paths


def _archive(records: Sequence[Record]) -> bytes:
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=buffer, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for record in records:
            text = json.dumps(record.annotation, ensure_ascii=False, separators=(",", ":"))
            for suffix, content in ((record.suffix, record.image), ("json", text.encode())):
                member = tarfile.TarInfo(f"{record.key}.{suffix}")
                member.size = len(content)
                member.mode = 0o644
                archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
