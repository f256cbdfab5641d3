"""Users' shards, in the layout of img2dataset, or of interleaved documents."""

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import final

from typing_extensions import override

from datamodules.decoding.captions import CaptionChoice, FirstCaption
from datamodules.reading.cache import ShardCache
from datamodules.reading.opening import identities, open_shard
from datamodules.reading.patterns import expand
from datamodules.reading.remote import RemoteFiles
from datamodules.reading.tar_shard import RawSample, read_shard
from datamodules.sample import Skipped
from datamodules.sources.source import DataSource, Split
from pretzel.errors import UserError


@final
class Shards(DataSource):
    """WebDataset shards: ``key.jpg|jpeg|png|webp`` with ``key.txt`` or ``key.json``.

    A ``key.json`` may hold captions in ``caption_field`` (:mod:`datamodules.decoding.captions`) and
    questions (:mod:`datamodules.decoding.questions`). Or it holds an interleaved document in
    ``segments`` (:mod:`datamodules.decoding.segments`), whose images are ``key.0.jpg``,
    ``key.1.jpg``, or whatever it names. Other members are not read.

    Shards are tars, plain or compressed, named by local paths or by ``http://``, ``https://``,
    ``s3://`` and ``gs://`` addresses; with braces (``cc/{00000..00099}.tar``), wildcards
    (``s3://bucket/cc/*.tar``), and several joined by ``::``. ``pipe:COMMAND`` is run only where the
    environment says ``PRETZEL_ALLOW_PIPE=1``.

    Args:
        train: Training shards.
        val: Validation shards, if any.
        test: Test shards, if any.
        caption_field: Field of ``key.json`` that holds the caption; or several of which all count,
            in order, ``.txt`` among them standing for ``key.txt``.
        caption_choice: Chooses one of several captions; the first if not given.
        attempts: Tries in all of an address that fails, with pauses of 1, 2, 4, ... seconds.
        timeout: Seconds without an answer or a byte after which a try has failed.
        cache: Folder where copies of remote shards are kept for later epochs and other runs.
        cache_gigabytes: Limit of their sizes together (10^9 bytes); those used longest ago go
            first.

    Raises:
        UserError: If there are no training shards, or a number is out of its range.
    """

    def __init__(
        self,
        train: str | list[str],
        val: str | list[str] | None = None,
        test: str | list[str] | None = None,
        caption_field: str | list[str] = "caption",
        caption_choice: CaptionChoice | None = None,
        attempts: int = 6,
        timeout: float = 60.0,
        cache: str | None = None,
        cache_gigabytes: float = 100.0,
    ) -> None:
        if not train:
            raise UserError(f"train must name at least one shard, got {train!r}")
        by_split: dict[Split, str | list[str] | None] = {"train": train, "val": val, "test": test}
        self._patterns = {
            split: [patterns] if isinstance(patterns, str) else patterns or []
            for split, patterns in by_split.items()
        }
        self.caption_field = caption_field
        self.caption_choice = caption_choice or FirstCaption()
        self._remote = RemoteFiles(attempts=attempts, timeout=timeout)
        shard_cache = None
        if not 0 < cache_gigabytes < math.inf:
            raise UserError(f"cache_gigabytes must be a number above 0, not {cache_gigabytes}")
        if cache is not None:
            max_bytes = int(cache_gigabytes * 10**9)
            shard_cache = ShardCache(folder=Path(cache).expanduser(), max_bytes=max_bytes)
        self._opened = partial(open_shard, remote=self._remote, cache=shard_cache)
        self._shards: dict[Split, tuple[str, ...]] = {}

    @override
    def shards(self, split: Split) -> tuple[str, ...]:
        """Return the shards of a split in the order of its patterns; wildcards are listed once.

        Raises:
            UserError: If a path does not exist, a pattern matches nothing or has unbalanced
                braces, or an address is none of those that are known.
        """
        if split not in self._shards:
            try:
                self._shards[split] = tuple(
                    shard
                    for pattern in self._patterns[split]
                    for shard in expand(pattern, self._remote)
                )
            except UserError as error:
                raise UserError(f"{split} {error}") from None
        return self._shards[split]

    @override
    def num_samples(self, split: Split) -> int | None:
        """Return 0 for a split without shards, else ``None``: it is unknown before reading."""
        return None if self._patterns[split] else 0

    @override
    def identities(self, shards: tuple[str, ...]) -> tuple[str, ...]:
        return identities(shards, self._remote)

    @override
    def read(self, shard: str, first: int = 0, step: int = 1) -> Iterator[RawSample | Skipped]:
        return read_shard(shard, first, step, self._opened)

    @override
    def read_texts(self, shard: str) -> Iterator[RawSample | Skipped]:
        return read_shard(shard, opened=self._opened, images=False)
