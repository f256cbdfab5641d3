"""A folder with copies of remote shards, of limited size; those used longest ago go first."""

import fcntl
import hashlib
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from datamodules.reading.remote import RemoteFiles
from pretzel.errors import UserError

_logger = logging.getLogger(__name__)
_COPY, _UNFINISHED, _LOCK = ".copy", ".part", ".lock"
_PIECE = 2**20
_OWN_NAME = re.compile(r".+\.[0-9a-f]{16}\.(copy|part)")


@dataclass(frozen=True, kw_only=True)
class ShardCache:
    """Copies of remote files, by address, size and ETag, shared by the processes of a machine.

    A copy gets its name when it is whole. Its space is taken before it is downloaded, so that all
    files together never exceed the limit; what does not fit is read without a copy. A copy that is
    deleted while it is read stays readable. Nothing else in the folder is touched.

    Attributes:
        folder: Where the copies lie.
        max_bytes: Limit of their sizes together.
    """

    folder: Path
    max_bytes: int

    def open(self, address: str, remote: RemoteFiles) -> IO[bytes]:
        """Return a remote file, from its copy, which is made if there is none.

        Raises:
            UserError: If the file does not exist or cannot be reached, or the folder cannot be
                written to.
        """
        identity = remote.identity(address)
        size = identity.size
        if size is None or size > self.max_bytes:
            return remote.open(address)
        digest = hashlib.sha256(str(identity).encode()).hexdigest()[:16]
        name = Path(address.partition("?")[0]).name[-50:]
        path = self.folder / f"{name}.{digest}{_COPY}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            while (copy := _opened(path)) is None:
                with _locked(_unfinished(path)) as is_ours:
                    # Otherwise another process has finished, or has given up, in the meantime.
                    if is_ours and not self._download(address, remote, path, size):
                        return remote.open(address)
            return copy
        except OSError as error:
            where = f"{error.strerror or error}"
            raise UserError(f"cache {str(self.folder)!r} cannot be written to: {where}") from None

    def _download(self, address: str, remote: RemoteFiles, path: Path, size: int) -> bool:
        """Make a copy unless there is one by now; tell whether there is."""
        part = _unfinished(path)
        is_whole = False
        try:
            if not path.exists() and self._reserve(part, size):
                with part.open("r+b") as file, remote.open(address) as stream:
                    while file.tell() < size and (piece := stream.read(_PIECE)):
                        file.write(piece)
                    file.flush()
                    os.fsync(file.fileno())  # else a power cut may leave the name without content
                    is_whole = file.tell() == size and not stream.read(1)
        except OSError as error:  # it breaks off for good, or the disk is full
            _logger.warning("%s: no copy is kept: %s", address, error)
        finally:
            if is_whole:
                part.replace(path)
            else:
                part.unlink(missing_ok=True)
        return path.exists()

    def _reserve(self, part: Path, size: int) -> bool:
        """Give the unfinished file its size, once there is space; tell whether there is."""
        with (self.folder / _LOCK).open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            files = []
            for path in filter(lambda path: _OWN_NAME.fullmatch(path.name), self.folder.iterdir()):
                with suppress(FileNotFoundError):  # finished or given up at this moment
                    status = path.stat()
                    files.append((status.st_mtime_ns, path, status.st_size))
            used = sum(each for _, _, each in files)
            for _, path, each in sorted(files):
                if used + size <= self.max_bytes:
                    break
                if _delete(path):
                    used -= each
            if used + size > self.max_bytes:
                return False
            os.truncate(part, size)
            return True


def _unfinished(path: Path) -> Path:
    return path.with_suffix(_UNFINISHED)


def _opened(path: Path) -> IO[bytes] | None:
    """Return an open copy, which counts as used now; None if there is none."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    with suppress(FileNotFoundError):  # deleted by another process: the open file stays readable
        os.utime(path)
    return file


@contextmanager
def _locked(part: Path) -> Iterator[bool]:
    """Hold the lock of an unfinished file; tell whether the file has stayed where it was."""
    with part.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            is_ours = os.path.samestat(os.fstat(file.fileno()), part.stat())
        except FileNotFoundError:
            is_ours = False
        yield is_ours


def _delete(path: Path) -> bool:
    """Delete a copy, or an unfinished file into which no process downloads; tell whether it was."""
    with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
        if path.suffix == _UNFINISHED:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
        return True
    return False
