"""Counts what a source holds, split by split, and shows it: tables, contact sheets, one page."""

from collections.abc import Iterator
from functools import partial
from itertools import islice

from datamodules.checks import check_at_least
from datamodules.decoding.picture import PictureDecoder
from datamodules.reading.tar_shard import RawSample
from datamodules.sample import Skipped
from datamodules.sources.source import DataSource, Split
from datamodules.tools.packed_folder import SPLITS
from datamodules.tools.progress_bar import counting
from datamodules.tools.summary import Summary, summarise
from datamodules.tools.worker_pool import map_in_order
from pretzel.errors import UserError

SHOWN_SIZE = 192
"""Side of the pictures that are shown, where no configuration says how large they are trained."""
_CHUNK = 32  # samples that a process counts at a time


def inspect(
    source: DataSource,
    *,
    image_size: int | None = None,
    upscale: bool = True,
    limit: int | None = None,
    num_workers: int = 0,
) -> dict[Split, Summary]:
    """Return the counts of every split that a source has.

    Args:
        source: The samples.
        image_size: Side of the images that are trained on, in pixels.
        upscale: Whether smaller images serve; otherwise they are counted as too small.
        limit: Number of samples of a split, skipped ones included; all if not given.
        num_workers: Processes that decode; 0 decodes in this one.

    Raises:
        UserError: If a number is below 1, a shard is missing, or there is no sample at all.
    """
    check_at_least(1, image_size=image_size, limit=limit)
    pictures = PictureDecoder(
        image_size=image_size or SHOWN_SIZE, upscale=upscale or image_size is None
    )
    count = partial(summarise, source.decoder(pictures))
    totals = [source.num_samples(split) for split in SPLITS]
    total = None if None in totals else sum(min(n, limit or n) for n in totals if n is not None)
    summaries = {}
    with counting("samples", total) as advance:
        for split in SPLITS:
            if not source.shards(split):
                continue
            summary = summaries[split] = Summary()
            for chunk, counts in map_in_order(count, _chunks(source, split, limit), num_workers):
                summary.merge(counts)
                advance(len(chunk))
    if not any(summary.samples or summary.skipped for summary in summaries.values()):
        raise UserError("the source has no sample in any split")
    return summaries


def _chunks(
    source: DataSource, split: Split, limit: int | None
) -> Iterator[list[RawSample | Skipped]]:
    raws = (raw for shard in source.shards(split) for raw in source.read(shard))
    limited = islice(raws, limit)
    while chunk := list(islice(limited, _CHUNK)):
        yield chunk
