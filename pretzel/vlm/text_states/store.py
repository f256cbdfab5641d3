"""States of texts on disk: append-only files of safetensors, found by content, read as mapped."""

import uuid
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from pretzel.errors import UserError
from pretzel.typing import Float, Tensor

KEY_BYTES = 16


class StateStore:
    """A folder of shards, each with the states of many texts.

    A shard appears whole, by a rename, and never changes, so that any number of processes may
    share a folder without locks; what two of them write twice is only stored twice. States read
    are views of the mapped file: what is in memory is the page cache's affair.

    Args:
        folder: Where the shards are; made if it is missing.
        max_bytes: Nothing is written beyond this size of the folder.
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
        self._waiting: dict[bytes, Tensor] = {}
        self._waiting_bytes = 0
        self._known: set[Path] = set()
        self._shards: list[tuple[Tensor, list[int]]] = []  # states, bounds of the texts
        self._places: dict[bytes, tuple[int, int]] = {}
        self._stored_bytes = 0
        self._is_full = False
        self._scan()

    def get(self, key: bytes) -> Float[Tensor, "l h"] | None:
        """Return the states of a text, None if they are not here."""
        waiting = self._waiting.get(key)
        if waiting is not None:
            return waiting
        place = self._places.get(key)
        if place is None:
            return None
        states, bounds = self._shards[place[0]]
        return states[bounds[place[1]] : bounds[place[1] + 1]]

    def put(self, key: bytes, states: Float[Tensor, "l h"]) -> None:
        """Keep the states of a text, if there is room for them."""
        size = states.numel() * states.element_size()
        if self._is_full or self._stored_bytes + self._waiting_bytes + size > self.max_bytes:
            self._is_full = True
            return
        if any(other.dtype != states.dtype for other in list(self._waiting.values())[:1]):
            self.flush()
        self._waiting[key] = states
        self._waiting_bytes += size
        if self._waiting_bytes >= self.shard_bytes:
            self.flush()

    def flush(self) -> None:
        """Write what waits as a shard, and find what other processes have written meanwhile."""
        waiting, self._waiting, self._waiting_bytes = self._waiting, {}, 0
        if waiting:
            keys = torch.frombuffer(bytearray(b"".join(waiting)), dtype=torch.uint8)
            tensors = {
                "keys": keys.view(-1, KEY_BYTES),
                "bounds": torch.tensor([0, *map(len, waiting.values())]).cumsum(0),
                "states": torch.cat(list(waiting.values())),
            }
            name = uuid.uuid4().hex
            partial = self.folder / f"{name}.partial"
            try:
                save_file(tensors, partial)
                partial.replace(self.folder / f"{name}.safetensors")
            except (OSError, SafetensorError) as error:
                self._is_full = True  # the run does without
                warnings.warn(f"states of texts are not kept: {error}", stacklevel=2)
            finally:
                partial.unlink(missing_ok=True)
        self._scan()

    def _scan(self) -> None:
        for path in sorted(set(self.folder.glob("*.safetensors")) - self._known):
            self._known.add(path)
            try:
                with safe_open(path, framework="pt") as file:
                    keys = file.get_tensor("keys").numpy().tobytes()
                    bounds = file.get_tensor("bounds").tolist()
                    states = file.get_tensor("states")
                if len(keys) != KEY_BYTES * (len(bounds) - 1) or len(states) != bounds[-1]:
                    raise SafetensorError("its parts do not belong together")
                self._stored_bytes += path.stat().st_size
            except (OSError, SafetensorError) as error:
                warnings.warn(f"{path} is left unread: {error}", stacklevel=3)
                continue
            for row in range(len(bounds) - 1):
                key = keys[row * KEY_BYTES : (row + 1) * KEY_BYTES]
                self._places.setdefault(key, (len(self._shards), row))
            self._shards.append((states, bounds))
