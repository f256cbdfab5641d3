"""Users' shards, in the layout of img2dataset, or of interleaved documents."""

from pathlib import Path
from typing import final

from braceexpand import braceexpand

from datamodules.shard_reader import is_pipe
from datamodules.source import ShardSource, Split
from pretzel.errors import UserError


@final
class Shards(ShardSource):
    """WebDataset shards: ``key.jpg|jpeg|png|webp`` with ``key.txt`` or ``key.json``.

    A ``key.json`` may hold the caption in ``caption_field`` (where there is no ``key.txt``) and
    ``questions``: a list of ``[question, answer]``. Or it holds an interleaved document in
    ``segments`` (:mod:`datamodules.segments`), whose images are ``key.0.jpg``, ``key.1.jpg``, or
    whatever it names. Other members are not read.

    Args:
        train: Training shards: paths with braces to expand, such as ``cc/{00000..00099}.tar``.
        val: Validation shards, if any.
        test: Test shards, if any.
        caption_field: Field of ``key.json`` that holds the caption.
        allow_pipe: Whether ``pipe:COMMAND`` is run. A command can do anything, so a configuration
            of somebody else must not run one by itself.

    Raises:
        UserError: If there are no training shards.
    """

    def __init__(
        self,
        train: str | list[str],
        val: str | list[str] | None = None,
        test: str | list[str] | None = None,
        caption_field: str = "caption",
        allow_pipe: bool = False,
    ) -> None:
        if not train:
            raise UserError(f"train must name at least one shard, got {train!r}")
        by_split: dict[Split, str | list[str] | None] = {"train": train, "val": val, "test": test}
        self._patterns = {
            split: [patterns] if isinstance(patterns, str) else patterns or []
            for split, patterns in by_split.items()
        }
        self.caption_field = caption_field
        self._allow_pipe = allow_pipe

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
            if not self._allow_pipe:
                raise UserError(
                    f"{split} shard {shard!r} would run a command: set allow_pipe: true to allow it"
                )
        elif "://" in shard:
            raise UserError(
                f"{split} shard {shard!r} is neither a local path nor a pipe: address; "
                f"use 'pipe:curl -s {shard}' with allow_pipe: true"
            )
        elif not Path(shard).is_file():
            raise UserError(f"{split} shard {shard!r} does not exist")


def _expand(split: Split, pattern: str) -> list[str]:
    try:
        return list(braceexpand(pattern))
    except ValueError:
        raise UserError(f"{split} shards {pattern!r}: braces are not balanced") from None
