"""Files of weights, and disks that are full or may not be written: one sentence, and which file."""

import errno
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from pretzel.errors import UserError

STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
"""Error numbers that are the disk's, not the program's."""


def storage_error(error: BaseException, folder: Path | str, advice: str) -> UserError | None:
    """Return what to tell the user; None if the error is not about storage.

    Args:
        error: What was raised.
        folder: Named where the system has not said which file it was.
        advice: The rest of the sentence.
    """
    if not isinstance(error, OSError) or error.errno not in STORAGE:
        return None
    where = error.filename2 or error.filename or folder
    return UserError(f"{where}: cannot be written ({error.strerror}){advice}")


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file that those may read who may read its folder.

    By itself safetensors leaves it to its owner, and a cluster has several users.

    Args:
        tensors: Contiguous, none sharing memory with another.
        path: The file.
        metadata: Goes with them.

    Raises:
        OSError, SafetensorError: If it cannot be written.
    """
    save_file(dict(tensors), path, metadata=dict(metadata))
    path.chmod(path.parent.stat().st_mode & 0o666)
