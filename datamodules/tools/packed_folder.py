"""A folder of shards that are being packed: whole files, and a journal by which it continues."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from io import BufferedRandom, BufferedWriter
from pathlib import Path
from typing import Any, get_args

from datamodules.reading.index import write_index
from datamodules.reading.tar_shard import RawSample
from datamodules.reading.tar_writer import ShardWriter
from datamodules.sample import Skipped
from datamodules.sources.source import Split
from datamodules.tools.hash_list import read_hashes, sha256_of, write_hashes
from datamodules.tools.pack_journal import PackedShard, PackJournal, Position
from pretzel.errors import UserError
from pretzel.files.atomic import read_json, write_json, write_text

MANIFEST = "manifest.json"
LICENSE = "LICENSE.txt"
SKIPPED = "skipped.jsonl"
_WORK = ".pack"
_SETTINGS = "settings.json"  # in it, until all is packed
SPLITS: tuple[Split, ...] = get_args(Split)

_ADVICE = "name another folder, or remove it"


@dataclass
class _OpenShard:
    """A shard that is being written, or that waits for its first sample."""

    number: int
    begin: Position
    skipped: list[Skipped] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    file: BufferedRandom | None = None
    writer: ShardWriter | None = None


class PackedFolder:
    """Writes shards one after the other, each whole; continues behind the finished ones.

    Args:
        folder: Receives the shards; it is made where it is missing.
        settings: Everything that decides what is packed into it.
        shard_size: Samples in a shard.
        held_out: Splits whose samples come out of the training samples.

    Attributes:
        is_complete: Whether all was packed before.

    Raises:
        UserError: If the folder holds anything else, or was begun with other settings.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        *,
        shard_size: int,
        held_out: Collection[Split] = (),
    ) -> None:
        self.folder = folder
        self._held_out = held_out
        self._work = folder / _WORK
        self._journal = PackJournal(self._work / "journal.jsonl")
        self._settings = json.loads(json.dumps(settings))
        self._shard_size = shard_size
        manifest = read_json(folder / MANIFEST)
        begun = read_json(self._work / _SETTINGS)
        self.is_complete = manifest is not None and begun is None
        if self.is_complete:
            assert manifest is not None
            begun = manifest.get("settings")
        try:
            others = [path.name for path in folder.iterdir()] if folder.exists() else []
        except OSError as error:
            raise UserError(f"{folder}: cannot be written ({error.strerror})") from error
        if begun is None and others not in ([], [_WORK]):
            raise UserError(f"{folder}: is not empty, and holds no shards that pack began to write")
        if begun is not None and begun != self._settings:
            raise UserError(f"{folder}: was packed {_difference(begun, self._settings)}; {_ADVICE}")
        self.shards: list[PackedShard] = []
        self._open: dict[Split, _OpenShard] = {}
        self._lock: BufferedWriter | None = None

    @property
    def begin(self) -> Position:
        """The first position in the source that is not yet packed."""
        return min(shard.begin for shard in self._open.values())

    def completed(self, license_text: str) -> dict[str, Any]:
        """Return the manifest of a folder that was packed before.

        Raises:
            UserError: If a file of it is missing, or another licence is given now.
        """
        for name in read_hashes(self.folder) or {}:
            if not (self.folder / name).is_file():
                raise UserError(f"{self.folder}: was packed, but {name} is missing; {_ADVICE}")
        manifest = read_json(self.folder / MANIFEST) or {}
        if license_text and license_text != manifest.get("license"):
            settings = ({"license": manifest.get("license")}, {"license": license_text})
            raise UserError(f"{self.folder}: was packed {_difference(*settings)}; {_ADVICE}")
        return manifest

    def prepare(self, license_text: str) -> None:
        """Make the folder, with its licence note and its settings, and hold it for this process.

        Raises:
            UserError: If another process holds it, or it cannot be written.
        """
        try:
            self._work.mkdir(parents=True, exist_ok=True)
            lock = (self._work / "lock").open("wb")
        except OSError as error:
            raise UserError(f"{self.folder}: cannot be written ({error.strerror})") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # let go however the process ends
        except BlockingIOError:
            lock.close()
            raise UserError(f"{self.folder}: another process packs into it") from None
        self._lock = lock
        self.shards = self._journal.read(self.folder)
        self._open = {split: self._next(split) for split in SPLITS}
        write_json(self._work / _SETTINGS, self._settings)
        write_text(self.folder / LICENSE, license_text)
        for partial in self._work.glob("*.partial"):
            partial.unlink()

    def needs(self, split: Split, position: Position) -> bool:
        """Tell whether the sample at a position of the source is not yet packed."""
        return position >= self._open[split].begin

    def add(self, split: Split, position: Position, sample: RawSample | Skipped) -> None:
        """Append the sample at a position of the source, or note that it was left out."""
        shard = self._open[split]
        if isinstance(sample, Skipped):
            shard.skipped.append(sample)
            return
        if shard.writer is None:
            shard.file = self._partial(split, shard.number).open("w+b")
            shard.writer = ShardWriter(shard.file)
        key = _key(sample.key, shard.keys)
        shard.writer.write({f"{key}.{suffix}": data for suffix, data in sample.members.items()})
        if len(shard.keys) == self._shard_size:
            self._finish(split, (*position[:2], position[2] + 1))

    def complete(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """Finish the last shards; write manifest, hashes and what was left out.

        Args:
            about: Further facts for the manifest.

        Returns:
            The manifest.

        Raises:
            UserError: If there is no sample to train on.
        """
        rest: list[Skipped] = []
        for split in SPLITS:
            if self._open[split].writer is not None:
                self._finish(split, (len(SPLITS), 0, 0))
            rest += self._open[split].skipped
        left_out = [one for shard in self.shards for one in shard.skipped] + rest
        if not any(shard.split == "train" for shard in self.shards):
            first = f"; the first that was skipped: {left_out[0]}" if left_out else ""
            raise UserError(f"{self.folder}: the source has no training sample to pack{first}")
        manifest = {"settings": self._settings, **about, "splits": self._counts(),
                    "skipped": _by_reason(left_out)}  # fmt: skip
        write_json(self.folder / MANIFEST, manifest)
        lines = [json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in left_out]
        write_text(self.folder / SKIPPED, "".join(lines))
        hashes = {name: digest for shard in self.shards for name, digest in shard.hashes.items()}
        for name in (MANIFEST, LICENSE, SKIPPED):
            hashes[name] = sha256_of(self.folder / name)
        write_hashes(self.folder, hashes)
        (self._work / _SETTINGS).unlink()  # from here on it is complete
        shutil.rmtree(self._work)
        return manifest

    def close(self) -> None:
        """Drop the shards that are not finished, and the folder if none is; let go of it."""
        if self._lock is None:
            return
        for split, shard in self._open.items():
            if shard.file is not None:
                with contextlib.suppress(OSError):  # a full disk takes no more of its buffer
                    shard.file.close()
                self._partial(split, shard.number).unlink(missing_ok=True)
        is_begun = not self._journal.is_empty or any(self.folder.glob("*.tar"))
        if self._work.exists() and not is_begun:
            shutil.rmtree(self._work)
            (self.folder / LICENSE).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # somebody else's files came meanwhile
                self.folder.rmdir()
        self._lock.close()

    def _partial(self, split: Split, number: int) -> Path:
        return self._work / f"{split}-{number:05d}.tar.partial"

    def _next(self, split: Split) -> _OpenShard:
        before = [shard for shard in self.shards if shard.split == split]
        first = (0 if split in self._held_out else SPLITS.index(split), 0, 0)
        return _OpenShard(number=len(before), begin=before[-1].end if before else first)

    def _finish(self, split: Split, end: Position) -> None:
        shard = self._open[split]
        assert shard.writer is not None
        assert shard.file is not None
        shard.writer.close()
        num_bytes = shard.file.tell()
        shard.file.flush()
        os.fsync(shard.file.fileno())  # else a power cut may leave the name without the content
        shard.file.seek(0)
        digest = hashlib.file_digest(shard.file, "sha256").hexdigest()
        shard.file.close()
        path = self.folder / f"{split}-{shard.number:05d}.tar"
        self._partial(split, shard.number).replace(path)
        index = write_index(path)
        packed = PackedShard(
            split=split,
            file=path.name,
            samples=len(shard.keys),
            num_bytes=num_bytes,
            hashes={path.name: digest, index.name: sha256_of(index)},
            skipped=tuple(shard.skipped),
            end=end,
        )
        self._journal.add(packed)
        self.shards.append(packed)
        self._open[split] = self._next(split)

    def _counts(self) -> dict[str, dict[str, int]]:
        of_split = {
            split: [shard for shard in self.shards if shard.split == split] for split in SPLITS
        }
        return {
            split: {
                "shards": len(shards),
                "samples": sum(shard.samples for shard in shards),
                "bytes": sum(shard.num_bytes for shard in shards),
            }
            for split, shards in of_split.items()
            if shards
        }


def unfinished_folders(folder: Path) -> list[Path]:
    """Return those of a folder and the ones in it that are being packed, or were not completed."""
    return sorted(settings.parent.parent for settings in folder.rglob(f"{_WORK}/{_SETTINGS}"))


def _key(key: str, keys: set[str]) -> str:
    """Return a key that readers of tar shards do not break at a dot, and that is new."""
    folder, slash, name = key.rpartition("/")
    plain = unique = f"{folder}{slash}{name.replace('.', '_')}"
    number = 2
    while unique in keys:
        unique, number = f"{plain}-{number}", number + 1
    keys.add(unique)
    return unique


def _by_reason(skipped: list[Skipped]) -> dict[str, int]:
    reasons = [one.reason for one in skipped]
    return {reason: reasons.count(reason) for reason in sorted(set(reasons))}


def _difference(begun: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Tell the first setting that differs."""
    for name in [*begun, *now]:
        if begun.get(name) != now.get(name):
            return f"with {name} {begun.get(name)!r}, not {now.get(name)!r}"
    return "otherwise"
