"""States of texts on disk: append-only files of safetensors, found by content, read as mapped."""

import time
import uuid
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from pretzel.errors import UserError
from pretzel.files.atomic import whole_file
from pretzel.files.weights import content_hash, save_tensors
from pretzel.typing import Float, Tensor

KEY_BYTES = 16
_DIGEST = "sha256"
STALE_SECONDS = 24 * 3600.0
"""Age from which a file that is being written is one that a killed process left."""


@dataclass(kw_only=True)
class _Shard:
    path: Path
    file: Any  # a handle of safetensors, which has no types
    is_checked: bool = False

    def check(self) -> None:
        """Raise a SafetensorError unless its content is what was written."""
        if not self.is_checked:
            states = {name: self.file.get_tensor(name) for name in self.file.keys()}  # noqa: SIM118
            if (self.file.metadata() or {}).get(_DIGEST) != content_hash(states):
                raise SafetensorError("its content is not what its hash says")
        self.is_checked = True


class StateStore:
    """A folder of shards, each with the states of many texts.

    A shard, one tensor a text, appears whole, by a rename, and never changes, so that any number of
    processes may share a folder without locks; a text that two of them write is only stored twice.
    States read are views of the mapped file: what is in memory is the page cache's affair. The
    content of a shard is hashed before the first of its states is read; a damaged one is as one
    that is missing.

    Args:
        folder: Where the shards are; made if it is missing. Files that killed processes left half
            written are removed from it after a day.
        max_bytes: Nothing is written beyond this size of the folder, but that processes which
            write a shard at the same moment do not know of each other's.
        shard_bytes: States that wait in memory until they fill a shard.

    Raises:
        UserError: If the folder cannot be made.
    """

    def __init__(self, folder: Path, max_bytes: int, shard_bytes: int) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"folder {folder} cannot be made ({error.strerror})") from error
        self.folder = folder
        self.max_bytes = max_bytes
        self.shard_bytes = shard_bytes
        self._waiting: dict[str, Tensor] = {}
        self._waiting_bytes = 0
        self._known: set[Path] = set()
        self._shards: list[_Shard] = []
        self._shard_of: dict[str, _Shard] = {}
        self._stored_bytes = 0
        self._is_full = False
        self._has_warned = False
        self._remove_stale()
        self._scan()

    def get(self, key: bytes) -> Float[Tensor, "l h"] | None:
        """Return the states of a text, None if they are not here."""
        name = key.hex()
        if (waiting := self._waiting.get(name)) is not None:
            return waiting
        while (shard := self._shard_of.get(name)) is not None:
            try:
                shard.check()
            except SafetensorError as error:
                self._forget(shard, error)
            else:
                states: Tensor = shard.file.get_tensor(name)
                return states
        return None

    def put(self, key: bytes, states: Float[Tensor, "l h"]) -> None:
        """Keep the states of a text, if there is room for them."""
        size = states.numel() * states.element_size()
        if self._is_full or self._stored_bytes + self._waiting_bytes + size > self.max_bytes:
            self._is_full = True
            return
        self._waiting[key.hex()] = states.contiguous()
        self._waiting_bytes += size
        if self._waiting_bytes >= self.shard_bytes:
            self.flush()

    def flush(self) -> None:
        """Find what other processes have written meanwhile, and write what waits as a shard."""
        self._scan()
        self._is_full |= self._stored_bytes + self._waiting_bytes > self.max_bytes
        waiting, self._waiting, self._waiting_bytes = self._waiting, {}, 0
        if not waiting or self._is_full:
            return
        try:
            with whole_file(self.folder / f"{uuid.uuid4().hex}.safetensors") as partial:
                save_tensors(waiting, partial, {_DIGEST: content_hash(waiting)})
        except (OSError, SafetensorError) as error:
            self._is_full = True  # the run does without
            warnings.warn(f"states of texts are not kept: {error}", stacklevel=2)
        self._scan()

    def _scan(self) -> None:
        for path in sorted(set(self.folder.glob("*.safetensors")) - self._known):
            self._known.add(path)
            try:
                shard = _Shard(path=path, file=safe_open(path, framework="pt"))
                self._stored_bytes += path.stat().st_size
            except (OSError, SafetensorError) as error:
                self._warn(path, error)
                continue
            self._shards.append(shard)
            self._index(shard)

    def _index(self, shard: _Shard) -> None:
        for name in shard.file.keys():  # noqa: SIM118
            self._shard_of.setdefault(name, shard)

    def _forget(self, damaged: _Shard, error: Exception) -> None:
        self._warn(damaged.path, error)
        self._shards.remove(damaged)
        self._shard_of = {}
        for shard in self._shards:  # another may have the same texts
            self._index(shard)

    def _warn(self, path: Path, error: Exception) -> None:
        if not self._has_warned:
            warnings.warn(
                f"{path} is left unread: {error}; its states are computed anew, and it can be "
                "deleted (further files are not named)",
                stacklevel=4,
            )
        self._has_warned = True

    def _remove_stale(self) -> None:
        for path in self.folder.glob("*.partial"):
            try:
                if time.time() - path.stat().st_mtime > STALE_SECONDS:
                    path.unlink()
            except OSError:  # another process was first, or may not be hindered
                continue
