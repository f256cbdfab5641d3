"""Disks that are full or may not be written: one sentence that names the file."""

import errno
from pathlib import Path

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
