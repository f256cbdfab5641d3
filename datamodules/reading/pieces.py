"""Pieces of remote files: what one request to a web server or an object store gives."""

import re
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from typing_extensions import override

PIECE = 4 * 2**20
"""Bytes that are asked for at once: a file that is read slowly keeps no connection open."""


class Pieces(ABC):
    """One remote file, of which pieces are fetched, each by one request."""

    def __init__(self, files: Any, address: str) -> None:  # noqa: ANN401
        self.files = files
        self.address = address

    @abstractmethod
    def fetch(self, position: int) -> bytes:
        """Return what comes at a position of the file; nothing at its end."""

    @abstractmethod
    def size_and_tag(self) -> tuple[str, str]:
        """Return the size and the ETag of the file, empty where they are not known."""

    @abstractmethod
    def close(self) -> None:
        """Give up the connection, if one is open."""


class BucketPieces(Pieces):
    """A file of an object store."""

    _size: int | None = None

    @override
    def fetch(self, position: int) -> bytes:
        if self._size is None:
            self._size = self.files.info(self.address)["size"]
        if position >= self._size:
            return b""
        end = min(position + PIECE, self._size)
        piece: bytes = self.files.cat_file(self.address, start=position, end=end)
        if len(piece) != end - position:
            raise OSError(f"{len(piece)} bytes came instead of {end - position}")
        return piece

    @override
    def size_and_tag(self) -> tuple[str, str]:
        info = self.files.info(self.address)
        tag = next((info[key] for key in ("ETag", "etag", "md5Hash", "crc32c") if key in info), "")
        return str(info["size"]), tag

    @override
    def close(self) -> None:
        pass


class HTTPPieces(Pieces):
    """A file of a web server; one that ignores ranges is read from a single answer."""

    _RANGE: ClassVar[re.Pattern[str]] = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
    _size: int | None = None
    _whole: Any = None  # the answer that holds the rest of the file

    @override
    def fetch(self, position: int) -> bytes:
        if self._size is not None and position >= self._size:
            return b""
        if self._whole is None:
            answer = self._ask(position, position + PIECE - 1)
            if answer is None:
                return b""
            if answer.r.status == 206:
                return self._read_piece(answer, position)
            self._whole = answer
            while position:
                position -= len(_some(answer, min(position, PIECE)) or _nothing_more())
        piece: bytes = _some(self._whole, PIECE)
        return piece

    def _read_piece(self, answer: Any, position: int) -> bytes:  # noqa: ANN401
        piece = bytearray()
        try:
            span = self._RANGE.fullmatch(answer.r.headers.get("Content-Range", ""))
            if span is None or int(span[1]) != position:
                raise OSError("the server answered with another part of the file")
            self._size = None if span[2] == "*" else int(span[2])
            # Some servers send all that follows, or more than there is.
            while len(piece) < PIECE and (some := _some(answer, PIECE - len(piece))):
                piece += some
        except Exception:
            if not piece:
                raise
        finally:
            answer.close()
        return bytes(piece) or _nothing_more()

    @override
    def size_and_tag(self) -> tuple[str, str]:
        answer = self._ask(0, 0)
        if answer is None:
            return "0", ""
        headers = answer.r.headers
        answer.close()
        size = headers.get("Content-Range", "/").rpartition("/")[2]
        return size or headers.get("Content-Length", ""), headers.get("ETag", "")

    def _ask(self, first: int, last: int) -> Any:  # noqa: ANN401
        """Return the answer to one request; None where the file has no such bytes."""
        try:
            # Of block size 0 and with a size, so that fsspec asks for nothing but this.
            return self.files.open(
                self.address, block_size=0, size=1, headers={"Range": f"bytes={first}-{last}"}
            )
        except Exception as error:
            if getattr(error, "status", None) == 416:
                return None
            raise

    @override
    def close(self) -> None:
        if self._whole is not None:
            self._whole.close()
            self._whole = None


def _some(answer: Any, most: int) -> bytes:  # noqa: ANN401
    return bytes(answer.read(most))


def _nothing_more() -> bytes:
    raise OSError("the file is shorter than it was")
