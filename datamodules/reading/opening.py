"""Opens shards: local files, addresses, and the output of commands where the user allows them."""

import os
from pathlib import Path
from typing import IO

from webdataset.gopen import Pipe

from datamodules.reading.cache import ShardCache
from datamodules.reading.remote import RemoteFiles, is_remote
from pretzel.errors import UserError
from pretzel.files.content_hash import file_hash

ALLOW_PIPE = "PRETZEL_ALLOW_PIPE"
"""Environment variable by which a user allows commands: a configuration may be somebody else's."""

_PIPE = "pipe:"
_BUFFER = 2**16


def is_pipe(address: str) -> bool:
    """Tell whether a shard is the output of a command (``pipe:COMMAND``)."""
    return address.startswith(_PIPE)


def check_pipe(address: str) -> None:
    """Refuse a command that the environment does not allow.

    Raises:
        UserError: If it is a command and ``PRETZEL_ALLOW_PIPE=1`` is not set.
    """
    if is_pipe(address) and os.environ.get(ALLOW_PIPE) != "1":
        raise UserError(
            f"shard {address!r} would run a command, which no configuration allows by itself: set "
            f"{ALLOW_PIPE}=1 in the environment if you know the command"
        )


def open_shard(
    address: str, remote: RemoteFiles | None = None, cache: ShardCache | None = None
) -> IO[bytes] | Pipe:
    """Return a shard open for reading in sequence.

    Args:
        address: Local path, ``http://``, ``https://``, ``s3://``, ``gs://`` or ``pipe:COMMAND``.
        remote: How addresses are read; with its defaults if not given.
        cache: Where copies of what they name are kept, if at all.

    Raises:
        UserError: If it does not exist, cannot be reached, or is a command that is not allowed.
    """
    if is_pipe(address):
        check_pipe(address)
        command = address.removeprefix(_PIPE)
        return Pipe(command, mode="rb", shell=True, bufsize=_BUFFER, ignore_errors=True)
    if is_remote(address):
        remote = remote or RemoteFiles()
        return remote.open(address) if cache is None else cache.open(address, remote)
    try:
        return Path(address).open("rb")
    except OSError as error:
        raise _unreadable(address, error) from None


def check_ended(pipe: Pipe) -> None:
    """Wait for a command whose output has been used.

    Raises:
        OSError: If it failed: there may have been more to come.
    """
    while pipe.read(_BUFFER):  # else it could not write the rest
        pass
    pipe.close()
    if pipe.status:
        raise OSError(f"the command ended with status {pipe.status}")


def identities(addresses: tuple[str, ...], remote: RemoteFiles | None = None) -> tuple[str, ...]:
    """Return what tells the contents of shards from those of others; nothing is downloaded.

    Of a file its content hash, of an address its text, size and ETag, of a command its text.

    Raises:
        UserError: If a shard does not exist or cannot be reached.
    """
    far = [a for a in addresses if is_remote(a) and not is_pipe(a)]
    by_address = dict(zip(far, map(str, (remote or RemoteFiles()).identities(far)), strict=True))
    return tuple(by_address.get(a) or _local_identity(a) for a in addresses)


def _local_identity(address: str) -> str:
    if is_pipe(address):
        return address
    try:
        return file_hash(Path(address))
    except OSError as error:
        raise _unreadable(address, error) from None


def _unreadable(address: str, error: OSError) -> UserError:
    if isinstance(error, FileNotFoundError):
        return UserError(f"shard {address!r} does not exist")
    return UserError(f"shard {address!r} cannot be read: {error.strerror}")
