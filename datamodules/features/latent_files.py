"""Latents of pictures on disk: one file for each shard, found by content."""

import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open

from pretzel.files.atomic import whole_file
from pretzel.files.cache_folder import cache_folder
from pretzel.files.weights import content_hash, save_tensors

Latents = Float[np.ndarray, "positions channels"]

DTYPES = ("float32", "float16")
"""Types of numbers in which latents are kept."""

_DIGEST = "sha256"
_TENSOR = "latents"
_MOST_OPEN = 128
"""Files that are kept open; a batch comes from 64 lanes at most, each in a shard of its own."""


@dataclass(frozen=True, kw_only=True)
class _OpenFile:
    file: Any  # a handle of safetensors, which has no types
    rows: Mapping[str, int]


@dataclass(frozen=True, eq=False, kw_only=True)
class LatentFiles:
    """Latents of the pictures of shards, as one encoder and one way to make pictures give them.

    A file is written whole, and never changed. Rows are read from the mapped file, whose content
    is hashed once in each process; a damaged one is as one that is missing, with a warning.

    Attributes:
        folder: Where the files are: :func:`latent_folder`.
        names: Name of the file of each shard, by the shard's path or address.
    """

    folder: Path
    names: Mapping[str, str]
    _open: dict[str, _OpenFile | None] = field(default_factory=dict, init=False, repr=False)
    _checked: set[str] = field(default_factory=set, init=False, repr=False)

    @classmethod
    def of(cls, folder: Path, shards: Sequence[str], identities: Sequence[str]) -> "LatentFiles":
        """Return the files of shards whose contents have these identities."""
        names = {
            shard: f"{_digest(identity)}.safetensors"
            for shard, identity in zip(shards, identities, strict=True)
        }
        return cls(folder=folder, names=names)

    @property
    def missing(self) -> tuple[str, ...]:
        """The shards that have no file."""
        return tuple(shard for shard in self.names if not self.has(shard))

    def has(self, shard: str) -> bool:
        """Tell whether a shard has a file."""
        return (self.folder / self.names[shard]).is_file()

    def delete_damaged(self) -> None:
        """Delete the files whose content is not what their hash says."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # to leave them unread is not all that is done here
            for shard in filter(self.has, self.names):
                if self._opened(shard) is None:
                    (self.folder / self.names[shard]).unlink(missing_ok=True)

    def get(self, shard: str, name: str) -> Latents | None:
        """Return the latents of a picture, None if they are not there.

        Args:
            shard: Path or address of the shard.
            name: Name of the picture's member in it.
        """
        if shard not in self._open:
            while len(self._open) >= _MOST_OPEN:
                del self._open[next(iter(self._open))]
            self._open[shard] = self._opened(shard)
        opened = self._open[shard]
        if opened is None or (row := opened.rows.get(name)) is None:
            return None
        latents: Latents = opened.file.get_slice(_TENSOR)[row]
        return latents

    def write(
        self, shard: str, names: Sequence[str], latents: Sequence[Latents], about: Mapping[str, str]
    ) -> None:
        """Write the latents of a shard's pictures.

        Args:
            shard: Path or address of the shard.
            names: Names of the pictures' members; those that two have are left out.
            latents: Latents of each.
            about: What they were made of, in words.

        Raises:
            OSError, SafetensorError: If the file cannot be written.
        """
        counts = Counter(names)
        rows = [row for row, name in enumerate(names) if counts[name] == 1]
        stacked = np.stack([latents[row] for row in rows]) if rows else np.zeros((0, 0, 0), "f4")
        tensors = {_TENSOR: torch.from_numpy(stacked).contiguous()}
        metadata = {
            _DIGEST: content_hash(tensors),
            "names": json.dumps([names[row] for row in rows]),
            **about,
        }
        with whole_file(self.folder / self.names[shard]) as partial:
            save_tensors(tensors, partial, metadata)

    def _opened(self, shard: str) -> _OpenFile | None:
        name = self.names.get(shard)
        if name is None or not (path := self.folder / name).is_file():
            return None
        try:
            file: Any = safe_open(path, framework="np")
            metadata = file.metadata() or {}
            names = json.loads(metadata["names"])
            if name not in self._checked:
                tensors = {_TENSOR: torch.from_numpy(file.get_tensor(_TENSOR))}
                if metadata[_DIGEST] != content_hash(tensors):
                    raise SafetensorError("its content is not what its hash says")
                self._checked.add(name)
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            warnings.warn(
                f"latents in {path} are left unread: {error}; the pictures of {shard} are encoded "
                "in training, until `pretzel data embed` computes it anew",
                stacklevel=2,
            )
            return None
        return _OpenFile(file=file, rows={name: row for row, name in enumerate(names)})


def latent_folder(about: Mapping[str, str]) -> Path:
    """Return the folder of the latents that are made in one way.

    Args:
        about: Encoder, way to make pictures and type of the numbers, in words.
    """
    return latent_root() / _digest(json.dumps(dict(about), sort_keys=True))


def latent_root() -> Path:
    """Return the folder of all latents."""
    return cache_folder("latents")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
