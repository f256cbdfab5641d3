"""Remote files through fsspec: tried again, continued where they break off."""

import io
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit

import fsspec
from typing_extensions import override

from datamodules.checks import check_at_least
from datamodules.reading.pieces import BucketPieces, HTTPPieces, Pieces
from pretzel.errors import UserError

_LONGEST_PAUSE = 60.0  # seconds
_NUM_THREADS = 16
_RETRYABLE_STATUS = (408, 425, 429)  # of HTTP's 4xx, those that pass by themselves
_WITHOUT_ACCESS = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound")  # botocore's
_PACKAGES = {"http": "aiohttp", "https": "aiohttp", "s3": "s3fs", "gs": "gcsfs"}
_exhausted: dict[str, int] = {}  # places in files where the tries of this process are used up
_logger = logging.getLogger(__name__)
_Result = TypeVar("_Result")


def is_remote(address: str) -> bool:
    """Tell whether a shard is an address rather than a local path (``https://...``)."""
    return "://" in address


@dataclass(frozen=True, kw_only=True)
class RemoteIdentity:
    """Identity of the content behind an address.

    Attributes:
        address: The address.
        size: Bytes, where the server gives their number.
        tag: The ETag or a checksum, where the server gives one.
    """

    address: str
    size: int | None
    tag: str

    def __str__(self) -> str:
        return f"{self.address} {'?' if self.size is None else self.size} {self.tag or '?'}"


@dataclass(frozen=True, kw_only=True)
class RemoteFiles:
    """Reads files by their addresses: ``http://``, ``https://``, ``s3://``, ``gs://``.

    What fails is tried again after pauses of 1, 2, 4, ... seconds. Tries are counted from the last
    byte that came; an address whose tries are used up gets single ones from then on in this
    process, until one succeeds at the place where they failed. What cannot pass by itself (a file
    that does not exist, refused access) is not tried again. Credentials and endpoints come from the
    environment, as boto, gcloud and fsspec (``FSSPEC_S3_ANON=true``) read it.

    Attributes:
        attempts: Tries in all.
        timeout: Seconds without an answer or a byte after which a try has failed.
    """

    attempts: int = 6
    timeout: float = 60.0

    def __post_init__(self) -> None:
        check_at_least(1, attempts=self.attempts)
        if not self.timeout > 0:
            raise UserError(f"timeout must be more than 0 seconds, not {self.timeout}")

    def open(self, address: str) -> IO[bytes]:
        """Return a file to be read once, in sequence; its first piece has been fetched.

        Reading it raises an ``OSError`` where it breaks off for good.

        Raises:
            UserError: If it does not exist, access is refused, or no try succeeds.
        """
        stream = _RemoteStream(self, address, self._pieces(address))
        try:
            stream.fetch()
        except OSError as error:
            raise UserError(str(error)) from None
        return io.BufferedReader(stream)

    def identity(self, address: str) -> RemoteIdentity:
        """Return address, size and ETag of a file, without downloading it.

        Raises:
            UserError: As for :meth:`open`.
        """
        return self._identity(self._pieces(address))

    def identities(self, addresses: Sequence[str]) -> list[RemoteIdentity]:
        """Return the identities of many files, of which several are asked for at once.

        Raises:
            UserError: As for :meth:`open`.
        """
        with ThreadPoolExecutor(_NUM_THREADS) as threads:
            # The file systems are made here: fsspec makes others for each thread.
            return list(threads.map(self._identity, [self._pieces(a) for a in addresses]))

    def _identity(self, pieces: Pieces) -> RemoteIdentity:
        try:
            size, tag = self.retry(pieces.address, pieces.size_and_tag)
        except OSError as error:
            raise UserError(str(error)) from None
        return RemoteIdentity(
            address=pieces.address, size=int(size) if size.isdecimal() else None, tag=tag.strip('"')
        )

    def glob(self, pattern: str) -> list[str]:
        """Return the addresses that match a pattern, in order.

        Raises:
            UserError: If they cannot be listed.
        """
        files = self._filesystem(pattern)
        try:
            paths = self.retry(pattern, lambda: files.glob(pattern))
        except OSError as error:
            raise UserError(str(error)) from None
        return sorted(str(files.unstrip_protocol(path)) for path in paths)

    def retry(self, address: str, action: Callable[[], _Result], position: int = 0) -> _Result:
        """Return the result of an action, which is tried again where it fails.

        Args:
            address: The address that it reads.
            action: What is tried.
            position: Bytes of the file that have come before.

        Raises:
            UserError: If it fails in a way that does not pass by itself.
            OSError: If no try succeeds.
        """
        attempts = 1 if address in _exhausted else self.attempts
        for attempt in range(1, attempts + 1):
            try:
                result = action()
            # Each protocol's library has exceptions of its own.
            except Exception as error:
                why = " ".join(str(error).split()) or type(error).__name__
                _raise_if_lasting(address, error, why)
            else:
                if position >= _exhausted.get(address, position):
                    _exhausted.pop(address, None)
                return result
            if attempt < attempts:
                pause = min(2.0 ** (attempt - 1), _LONGEST_PAUSE)
                _logger.warning("%s: %s; try %d failed, next in %gs", address, why, attempt, pause)
                time.sleep(pause)
        _exhausted[address] = position
        tries = "once" if attempts == 1 else f"{attempts} times"
        raise OSError(f"{address!r} cannot be read, tried {tries}: {why}")

    def _pieces(self, address: str) -> Pieces:
        kind = HTTPPieces if urlsplit(address).scheme in ("http", "https") else BucketPieces
        return kind(self._filesystem(address), address)

    def _filesystem(self, address: str) -> Any:  # noqa: ANN401  # fsspec has no types
        protocol = urlsplit(address).scheme
        if protocol not in _PACKAGES:
            raise UserError(
                f"address {address!r} must begin with one of "
                f"{', '.join(f'{known}://' for known in _PACKAGES)}"
            )
        try:
            return self._connect(protocol)
        except ImportError:
            raise UserError(
                f"address {address!r} needs the package {_PACKAGES[protocol]}: "
                "pip install 'pretzel-starflow[remote]'"
            ) from None

    def _connect(self, protocol: str) -> Any:  # noqa: ANN401
        # fsspec keeps file systems by their arguments and makes new ones in forked processes.
        match protocol:
            case "http" | "https":
                import aiohttp

                timeout = aiohttp.ClientTimeout(
                    total=None, sock_connect=self.timeout, sock_read=self.timeout
                )
                # Shards are taken as they are stored: a .tar.gz is no encoding of a .tar.
                headers = {"Accept-Encoding": "identity"}
                client = {"timeout": timeout, "headers": headers, "auto_decompress": False}
                return fsspec.filesystem(protocol, client_kwargs=client)
            case "s3":
                config = {
                    "connect_timeout": self.timeout,
                    "read_timeout": self.timeout,
                    "retries": {"total_max_attempts": 1},
                }
                files = fsspec.filesystem(protocol, config_kwargs=config)
                files.retries = 1  # tries are counted here
                return files
            case _:
                return fsspec.filesystem(protocol)


class _RemoteStream(io.RawIOBase):
    """The bytes of a remote file, in sequence."""

    mode = "rb"

    def __init__(self, remote: RemoteFiles, address: str, pieces: Pieces) -> None:
        self.name = address
        self._remote = remote
        self._address = address
        self._pieces = pieces
        self._position = 0  # in the file, of the end of the piece
        self._piece = memoryview(b"")
        self._ended = False

    def fetch(self) -> None:
        """Fetch the next piece."""
        self._piece = memoryview(self._remote.retry(self._address, self._try, self._position))
        self._position += len(self._piece)
        self._ended = not self._piece

    def _try(self) -> bytes:
        try:
            return self._pieces.fetch(self._position)
        except Exception:
            self._pieces.close()
            raise

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Any) -> int:
        if not self._piece and not self._ended:
            self.fetch()
        count = min(len(buffer), len(self._piece))
        buffer[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        return count

    @override
    def close(self) -> None:
        self._pieces.close()
        super().close()


def _raise_if_lasting(address: str, error: Exception, why: str) -> None:
    """Raise a user's error where to try again does not help.

    Raises:
        UserError: If the file does not exist, access is refused, or there is no such address.
    """
    status = getattr(error, "status", None)
    if isinstance(error, FileNotFoundError):
        raise UserError(f"{address!r} does not exist") from None
    has_no_access = status in (401, 403) or type(error).__name__ in _WITHOUT_ACCESS
    if isinstance(error, PermissionError) or has_no_access:
        raise UserError(f"access to {address!r} is refused: {why}") from None
    refused = status is not None and 400 <= status < 500 and status not in _RETRYABLE_STATUS
    if refused or isinstance(error, ValueError | TypeError):
        raise UserError(f"{address!r} cannot be read: {why}") from None
