"""Users' shards, in the layout of img2dataset, or of interleaved documents."""

import os
from pathlib import Path
from typing import final

from braceexpand import braceexpand

from datamodules.reading.tar_shard import is_pipe
from datamodules.sources.source import DataSource, Split
from pretzel.errors import UserError

ALLOW_PIPE = "PRETZEL_ALLOW_PIPE"
"""Environment variable by which a user allows commands: a configuration may be somebody else's."""


@final
class Shards(DataSource):
    """WebDataset shards: ``key.jpg|jpeg|png|webp`` with ``key.txt`` or ``key.json``.

    A ``key.json`` may hold the caption in ``caption_field`` (where there is no ``key.txt``) and
    ``questions``: a list of ``[question, answer]``. Or it holds an interleaved document in
    ``segments`` (:mod:`datamodules.decoding.segments`), whose images are ``key.0.jpg``,
    ``key.1.jpg``, or whatever it names. Other members are not read. ``pipe:COMMAND`` is run only
    where the environment says ``PRETZEL_ALLOW_PIPE=1``.

    Args:
        train: Training shards: paths with braces to expand, such as ``cc/{00000..00099}.tar``.
        val: Validation shards, if any.
        test: Test shards, if any.
        caption_field: Field of ``key.json`` that holds the caption.

    Raises:
        UserError: If there are no training shards.
    """

    def __init__(
        self,
        train: str | list[str],
        val: str | list[str] | None = None,
        test: str | list[str] | None = None,
        caption_field: str = "caption",
    ) -> None:
        if not train:
            raise UserError(f"train must name at least one shard, got {train!r}")
        by_split: dict[Split, str | list[str] | None] = {"train": train, "val": val, "test": test}
        self._patterns = {
            split: [patterns] if isinstance(patterns, str) else patterns or []
            for split, patterns in by_split.items()
        }
        self.caption_field = caption_field

    def shards(self, split: Split) -> tuple[str, ...]:
        """Return the shards of a split in the order of its patterns.

        Raises:
            UserError: If a path does not exist, a pattern has unbalanced braces, or an address is
                neither a local path nor an allowed ``pipe:``.
        """
        shards = [shard for pattern in self._patterns[split] for shard in _expand(split, pattern)]
        for shard in shards:
            self._check(split, shard)
        return tuple(shards)

    def num_samples(self, split: Split) -> int | None:
        """Return 0 for a split without shards, else ``None``: it is unknown before reading."""
        return None if self._patterns[split] else 0

    def _check(self, split: Split, shard: str) -> None:
        if is_pipe(shard):
            if os.environ.get(ALLOW_PIPE) != "1":
                raise UserError(
                    f"{split} shard {shard!r} would run a command, which no configuration allows "
                    f"by itself: set {ALLOW_PIPE}=1 in the environment if you know the command"
                )
        elif "://" in shard:
            raise UserError(
                f"{split} shard {shard!r} is neither a local path nor a pipe: address; "
                f"use 'pipe:curl -s {shard}' with {ALLOW_PIPE}=1 in the environment"
            )
        elif not Path(shard).is_file():
            raise UserError(f"{split} shard {shard!r} does not exist")


def _expand(split: Split, pattern: str) -> list[str]:
    try:
        return list(braceexpand(pattern))
    except ValueError:
        raise UserError(f"{split} shards {pattern!r}: braces are not balanced") from None
