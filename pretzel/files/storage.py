"""Disks that are full or may not be written: one sentence that names the file."""

import errno
from pathlib import Path

from pretzel.errors import UserError

# Error numbers that are the disk's, not the program's
_STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


def storage_error(error: BaseException, folder: Path | str, advice: str) -> UserError | None:
    """Return what to tell the user, advice at its end; None if the error is not about storage.

    The folder is named where the system has not said which file it was.
    """
    if not isinstance(error, OSError) or error.errno not in _STORAGE:
        return None
    where = error.filename2 or error.filename or folder
    return UserError(f"{where}: cannot be written ({error.strerror}){advice}")
