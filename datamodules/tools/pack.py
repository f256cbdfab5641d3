"""Packs the samples of any source into tar shards in the layout of img2dataset."""

import sys
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from datamodules.checks import check_at_least
from datamodules.decoding.decoder import SampleDecoder
from datamodules.decoding.picture import PictureDecoder
from datamodules.reading.tar_shard import RawSample
from datamodules.sample import Skipped
from datamodules.sources.source import DataSource, Split
from datamodules.tools.pack_journal import Position
from datamodules.tools.packed_folder import SPLITS, PackedFolder
from datamodules.tools.progress_bar import counting
from datamodules.tools.split_rule import SplitRule
from datamodules.tools.worker_pool import map_in_order
from pretzel.files.storage import storage_error

SHARD_SIZE = 1000
_CHUNK = 32  # samples that a process checks at a time
_NO_LICENSE = (
    "No licence was stated when these shards were packed: find out what the pictures and texts "
    "may be used for before you share them or what is trained on them.\n"
)

_Item = tuple[Split, Position, RawSample | Skipped]
"""A sample of the source: the split it is packed into, and where it was read."""


def pack(
    source: DataSource,
    folder: Path,
    *,
    name: str,
    rule: SplitRule | None = None,
    license_text: str = "",
    shard_size: int = SHARD_SIZE,
    num_workers: int = 0,
) -> dict[str, Any]:
    """Pack all splits of a source; continue where an interrupted call ended.

    Every sample is decoded once. One that cannot be is left out, counted by its reason, and named
    in ``skipped.jsonl``. The shards do not depend on the number of processes, nor on
    interruptions.

    Args:
        source: The samples.
        folder: Receives ``SPLIT-00000.tar``, ... with an index beside each, ``manifest.json``,
            ``SHA256SUMS``, ``LICENSE.txt`` and ``skipped.jsonl``.
        name: What the manifest calls the source.
        rule: Shares of the training samples to hold out; none if not given.
        license_text: What the pictures and texts may be used for.
        shard_size: Samples in a shard.
        num_workers: Processes that decode; 0 decodes in this one.

    Returns:
        The manifest.

    Raises:
        UserError: If an argument is out of its range, the folder holds anything else or cannot be
            written, or the source has no training sample.
        KeyboardInterrupt: By Ctrl-C; the same call continues.
    """
    check_at_least(1, shard_size=shard_size)
    rule = rule or SplitRule()
    rule.check(source)
    # before anything is written: shards may be missing
    found = {split: [len(source.shards(split)), source.num_samples(split)] for split in SPLITS}
    settings = {
        "source": name,
        "shards and samples": found,
        "shard_size": shard_size,
        "held_out": dict(rule.held_out),
    }
    license_text = license_text.strip()
    packed = PackedFolder(folder, settings, shard_size=shard_size, held_out=rule.held_out)
    if packed.is_complete:
        return packed.completed(license_text)
    try:
        packed.prepare(f"{license_text}\n" if license_text else _NO_LICENSE)
        _pack(source, packed, rule, num_workers)
        return packed.complete({"license": license_text or None})
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; the same command continues {folder}") from None
    except OSError as error:
        advice = "; make room, and the same command continues"
        raise storage_error(error, folder, advice) or error from error
    finally:
        packed.close()


def _pack(source: DataSource, packed: PackedFolder, rule: SplitRule, num_workers: int) -> None:
    totals = [source.num_samples(split) for split in SPLITS]
    total = None if None in totals else sum(filter(None, totals))
    chunks = _chunks(_needed(source, packed, rule))
    # what a run finds too small or too long is the run's own choice
    pictures = PictureDecoder(image_size=1, upscale=True)
    check = partial(_check, source.decoder(pictures, max_characters=sys.maxsize))
    with counting("samples", total, sum(shard.samples for shard in packed.shards)) as advance:
        for chunk, problems in map_in_order(check, chunks, num_workers):
            for (split, position, sample), problem in zip(chunk, problems, strict=True):
                packed.add(split, position, problem or sample)
            advance(len(chunk))


def _needed(source: DataSource, packed: PackedFolder, rule: SplitRule) -> Iterator[_Item]:
    """Yield the samples that are not yet packed, in the order of the source."""
    begin = packed.begin
    for number, split in enumerate(SPLITS):
        for place, shard in enumerate(source.shards(split)):
            if (number, place) < begin[:2]:
                continue
            first = begin[2] if (number, place) == begin[:2] else 0
            for index, sample in enumerate(source.read(shard, first), first):
                target, position = rule.split_of(split, sample.key), (number, place, index)
                if packed.needs(target, position):
                    yield target, position, sample


def _chunks(items: Iterator[_Item]) -> Iterator[list[_Item]]:
    while chunk := list(islice(items, _CHUNK)):
        yield chunk


def _check(decoder: SampleDecoder, chunk: Iterable[_Item]) -> list[Skipped | None]:
    """Return what is wrong with samples."""
    decoded = [sample if isinstance(sample, Skipped) else decoder(sample) for _, _, sample in chunk]
    return [one if isinstance(one, Skipped) else None for one in decoded]
