"""Tar files of samples."""

import io
import tarfile


def write_tar(path, members):
    """Write members, in order, to a tar file and return its path."""
    with tarfile.open(path, "w") as archive:
        for member, content in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path
