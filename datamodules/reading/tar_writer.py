"""Writes tar shards that are the same bytes for the same samples."""

import io
import tarfile
from collections.abc import Mapping
from io import BufferedIOBase


class ShardWriter:
    """Writes samples into a tar archive without times, owners or paths.

    Args:
        file: Receives the archive, compressed or not as the file does it; it is not closed.
    """

    def __init__(self, file: BufferedIOBase) -> None:
        # pax headers where names are long; otherwise the same bytes as ustar
        self._tar = tarfile.TarFile(fileobj=file, mode="w", format=tarfile.PAX_FORMAT)

    def write(self, members: Mapping[str, bytes]) -> None:
        """Append the files of one sample, by name."""
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = 0o644
            self._tar.addfile(member, io.BytesIO(content))
            self._tar.members = []  # type: ignore[attr-defined]  # else all headers stay in memory

    def close(self) -> None:
        """Write the end mark; the file stays open."""
        self._tar.close()
