"""The shards that a ``pack`` has finished, written down so that it continues behind them."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

from datamodules.sample import Skipped
from datamodules.sources.source import Split
from pretzel.files.atomic import write_text

Position = tuple[int, int, int]
"""Place in a source: number of the split, of the shard in it, of the sample in the shard."""


@dataclass(frozen=True, kw_only=True)
class PackedShard:
    """A finished shard.

    Attributes:
        split: Its split.
        file: Its name in the folder.
        samples: Number of samples in it.
        num_bytes: Its size.
        hashes: SHA-256 of the shard and of its index, by name.
        skipped: Samples that were left out since the shard before it.
        end: Position in the source behind its last sample.
    """

    split: Split
    file: str
    samples: int
    num_bytes: int
    hashes: dict[str, str]
    skipped: tuple[Skipped, ...]
    end: Position

    def is_in(self, folder: Path) -> bool:
        """Tell whether a folder has the shard, as far as its size tells."""
        place = folder / self.file
        return place.is_file() and place.stat().st_size == self.num_bytes


@final
class PackJournal:
    """A line of JSON for each shard, in the order in which they were finished.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def is_empty(self) -> bool:
        """Whether no shard is finished."""
        return not self._path.exists() or not self._path.stat().st_size

    def read(self, folder: Path) -> list[PackedShard]:
        """Return the shards, up to the first line that was cut or shard that a folder lacks.

        What is behind is dropped, so that further lines follow whole ones.
        """
        shards = []
        for line in (
            self._path.read_text(encoding="utf-8").splitlines() if not self.is_empty else ()
        ):
            try:
                values = json.loads(line)
            except ValueError:
                break
            values["skipped"] = tuple(Skipped(**one) for one in values["skipped"])
            values["end"] = tuple(values["end"])
            shard = PackedShard(**values)
            if not shard.is_in(folder):
                break
            shards.append(shard)
        write_text(self._path, "".join(map(_line, shards)))
        return shards

    def add(self, shard: PackedShard) -> None:
        """Write down a shard that is finished."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line(shard))
            file.flush()
            os.fsync(file.fileno())


def _line(shard: PackedShard) -> str:
    return f"{json.dumps(asdict(shard))}\n"
