"""Patterns of shards: lists, braces and wildcards, local and remote."""

import re
from glob import glob
from pathlib import Path

from braceexpand import braceexpand

from datamodules.reading.opening import check_pipe, is_pipe
from datamodules.reading.remote import RemoteFiles, is_remote
from pretzel.errors import UserError

_LIST = "::"
_WILDCARDS = re.compile(r"[*?[]")
_WILDCARDS_OF_PAGES = re.compile(r"[*[]")  # an address of a web server may have a query behind "?"


def expand(pattern: str, remote: RemoteFiles) -> list[str]:
    """Return the shards that a pattern names, in its order; those of a wildcard are sorted.

    Args:
        pattern: Paths or addresses joined by ``::``, each with braces (``{00000..00099}``) and
            wildcards (``*``, ``?``, ``[0-9]``, ``**``), or a ``pipe:COMMAND``.
        remote: How addresses with wildcards are listed.

    Raises:
        UserError: If braces are not balanced, a wildcard matches nothing, a local shard does not
            exist or a command is not allowed.
    """
    if is_pipe(pattern):
        check_pipe(pattern)
        return _braces(pattern)
    return [
        shard
        for item in pattern.split(_LIST)
        for plain in _braces(item)
        for shard in _matches(plain, remote)
    ]


def _braces(pattern: str) -> list[str]:
    try:
        return list(braceexpand(pattern))
    except ValueError:
        raise UserError(f"shards {pattern!r}: braces are not balanced") from None


def _matches(path: str, remote: RemoteFiles) -> list[str]:
    if is_remote(path):
        wildcards = _WILDCARDS_OF_PAGES if path.startswith("http") else _WILDCARDS
        shards = remote.glob(path) if wildcards.search(path) else [path]
    elif Path(path).is_file():
        shards = [path]
    elif _WILDCARDS.search(path):
        shards = sorted(match for match in glob(path, recursive=True) if Path(match).is_file())
    else:
        raise UserError(f"shard {path!r} does not exist")
    if not shards:
        raise UserError(f"shards {path!r}: nothing matches")
    return shards
