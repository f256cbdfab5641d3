"""Where the samples of a local, uncompressed tar shard begin, so that they can be sought.

``NAME.tar.index`` lies beside its shard: an array of 64-bit integers in numpy's ``.npy`` format.

====================  =============================================================================
1                     number of the format
size                  of the shard in bytes
fingerprint           of the first and last 64 KiB of the shard: 63 bits of their SHA-256
0, offset, offset...  where each sample begins, in bytes; the first at 0
====================  =============================================================================

An index that is not of its shard is not used. Where there is none, a process notes where samples
begin as far as it has read.
"""

import hashlib
import io
import os
import stat
import tarfile
import warnings
from array import array
from collections.abc import MutableSequence
from functools import lru_cache
from pathlib import Path
from typing import IO, final

import numpy as np

from datamodules.reading.archive import COMPRESSED, archive_from, samples_of
from pretzel.errors import UserError
from pretzel.files.atomic import whole_file

SUFFIX = ".index"
_FORMAT = 1
_END = 2**16
_NUM_KEPT = 256


@final
class Starts:
    """Offsets of the samples of a shard, as far as they are known.

    Args:
        offsets: Of the first samples.
    """

    def __init__(self, offsets: MutableSequence[int] | None = None) -> None:
        self._offsets = offsets or array("q", [0])

    def __len__(self) -> int:
        return len(self._offsets)

    def before(self, number: int) -> tuple[int, int]:
        """Return the last known sample that is not behind one, and its offset."""
        place = min(number, len(self._offsets) - 1)
        return place, self._offsets[place]

    def note(self, number: int, offset: int) -> None:
        """Learn where a sample begins."""
        if number == len(self._offsets):
            self._offsets.append(offset)

    def forget(self) -> None:
        """Know nothing but the beginning of the shard."""
        del self._offsets[1:]


def write_index(shard: str | Path) -> Path:
    """Write the index of a shard beside it, whole or not at all; return its path.

    Equal shards have equal indexes.

    Raises:
        UserError: If the shard is missing, compressed or damaged, or the index cannot be written.
    """
    path = Path(f"{shard}{SUFFIX}")
    try:
        with Path(shard).open("rb") as file:
            if is_compressed(file):
                raise ValueError("it is compressed")
            offsets = [offset for offset, *_ in samples_of(archive_from(file, 0))]
            header = [_FORMAT, os.fstat(file.fileno()).st_size, _fingerprint(file)]
        with whole_file(path) as partial, partial.open("wb") as output:
            np.save(output, np.array([*header, 0, *offsets[1:]], dtype="<i8"))
    except FileNotFoundError:
        raise UserError(f"shard {str(shard)!r} does not exist") from None
    except (tarfile.TarError, OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.args[0]
        raise UserError(f"shard {str(shard)!r} cannot be indexed: {reason}") from None
    return path


def read_index(shard: str | Path) -> MutableSequence[int] | None:
    """Return where the samples of a shard begin; None without an index that is of this shard."""
    path = Path(f"{shard}{SUFFIX}")
    try:
        with path.open("rb") as file:
            numbers = np.lib.format.read_array(file)
        with Path(shard).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            is_own = (
                numbers.ndim == 1
                and numbers.dtype == np.dtype("<i8")
                and numbers[:4].tolist() == [_FORMAT, size, _fingerprint(file), 0]
            )
        offsets = numbers[3:]
        if is_own and (np.diff(offsets) > 0).all() and offsets[-1] < max(size, 1):
            return array("q", offsets.tobytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, MemoryError):  # what numpy raises on other bytes
        pass
    warnings.warn(f"{path} is not the index of its shard and is not used", stacklevel=2)
    return None


def known_starts(file: IO[bytes]) -> Starts | None:
    """Return what is known of an open shard; None if it is no local, uncompressed file."""
    if not isinstance(file, io.BufferedReader) or not isinstance(file.raw, io.FileIO):
        return None
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or is_compressed(file):
        return None
    return _starts(str(file.name), status.st_size, status.st_mtime_ns)


def is_compressed(file: io.BufferedReader) -> bool:
    """Tell whether a file that was just opened is compressed."""
    return file.peek(6).startswith(tuple(COMPRESSED))


@lru_cache(_NUM_KEPT)
def _starts(name: str, size: int, changed: int) -> Starts:
    return Starts(read_index(name))


def _fingerprint(file: IO[bytes]) -> int:
    file.seek(0)
    ends = file.read(_END)
    file.seek(max(0, file.seek(0, os.SEEK_END) - _END))
    digest = hashlib.sha256(ends + file.read(_END)).digest()
    return int.from_bytes(digest[:8], "little") >> 1
