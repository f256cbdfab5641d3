"""The checkpoints from which a run continues: the last two, each with a checksum on record."""

import hashlib
import os
import shutil
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info

from pretzel.files.atomic import read_json, write_json


class Checkpoints:
    """``last.ckpt`` and ``previous.ckpt`` of a run, told apart from damaged ones by content.

    A new checkpoint is written beside them, its SHA-256 put on record, and then both get their
    names by renaming: whenever the process dies, one whole checkpoint with a known checksum is
    there. No clock decides which one is newer.
    """

    def __init__(self, folder: Path) -> None:
        self.last, self.previous = folder / "last.ckpt", folder / "previous.ckpt"
        self.record = folder / "checkpoints.json"

    def save(self, trainer: Trainer) -> None:
        """Save the state of training; all processes call it.

        Raises:
            OSError: If it cannot be written; those before are untouched.
            UserError: If the record cannot be written.
        """
        temporary = self.last.with_suffix(".saving")
        write(trainer, temporary, weights_only=False)
        if trainer.is_global_zero:
            # first the record: a checkpoint that is not on it counts as damaged
            write_json(self.record, {"sha256": [digest(temporary), *self._checksums()[:2]]})
            if self.last.exists():
                _rename(self.last, self.previous)
            _rename(temporary, self.last)

    def newest(self) -> Path | None:
        """Return the newest whole checkpoint; damaged ones are reported and removed."""
        checksums = self._checksums()
        damaged: list[Path] = []
        for path in (self.last, self.previous):
            if not path.exists():
                continue
            if digest(path) in checksums:
                if damaged:
                    rank_zero_info(f"{damaged[0]} is damaged; continuing from {path.name}")
                return path
            damaged.append(path)
            _remove(path)
        if damaged:
            names = " and ".join(str(path) for path in damaged)
            rank_zero_info(f"{names}: damaged, and no other checkpoint is left; starting anew")
        return None

    def clear(self) -> None:
        """Remove them, and what a killed process left half written."""
        self.sweep()
        for path in (self.last, self.previous, self.record):
            _remove(path)

    def sweep(self) -> None:
        """Remove what a killed process left half written."""
        for pattern in ("*.saving", "*.partial"):
            for path in self.last.parent.glob(pattern):
                _remove(path)

    def _checksums(self) -> list[str]:
        recorded = (read_json(self.record) or {}).get("sha256")
        return [str(checksum) for checksum in recorded] if isinstance(recorded, list) else []


def write(trainer: Trainer, path: Path, *, weights_only: bool) -> None:
    """Write a checkpoint whole or not at all; a folder, where the strategy shards it.

    Raises:
        OSError: If it cannot be written.
    """
    if trainer.is_global_zero:
        _remove(path)
    try:
        trainer.save_checkpoint(path, weights_only=weights_only)
    except BaseException:
        if trainer.is_global_zero:
            _remove(path)
        raise


def save_final(trainer: Trainer, path: Path) -> str | None:
    """Save the weights after training; return their SHA-256, None but on the first process."""
    temporary = path.with_suffix(".saving")
    write(trainer, temporary, weights_only=True)
    if not trainer.is_global_zero:
        return None
    checksum = digest(temporary)
    _rename(temporary, path)
    return checksum


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and contents of a folder's files."""
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    parts = sorted(part for part in path.rglob("*") if part.is_file())
    text = "\n".join(f"{part.relative_to(path)} {digest(part)}" for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()


def _rename(source: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    os.replace(source, target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
