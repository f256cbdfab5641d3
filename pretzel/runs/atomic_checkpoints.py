"""Checkpoints that are whole or not there, and refused where they were damaged later.

Lightning writes to the system's temporary folder and then copies where that is another file system:
a disk that fills up meanwhile leaves half a file where the last good checkpoint was. And torch
reads the bytes of a tensor as they are, whatever the checksum beside them says.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from typing_extensions import override

from pretzel.files.atomic import whole_file
from pretzel.files.torch_file import read_torch, refusal


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write beside the target, then rename over it; check before reading.

    Remote paths and folders are Lightning's.
    """

    @override
    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any | None = lambda storage, loc: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        if weights_only and Path(path).is_file():
            checkpoint: dict[str, Any] = read_torch(Path(path), map_location, mmap=False)
            return checkpoint
        try:
            return super().load_checkpoint(path, map_location, weights_only)
        except pickle.UnpicklingError as error:
            raise refusal(path, error) from None

    @override
    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Any | None = None,
    ) -> None:
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        content = io.BytesIO()  # as Lightning does; and torch's own writer raises no OSError
        torch.save(checkpoint, content)
        try:
            with whole_file(Path(path)) as partial:
                partial.write_bytes(content.getbuffer())
        except OSError as error:  # which names no file where the disk is full
            raise OSError(error.errno, error.strerror, str(path)) from error
