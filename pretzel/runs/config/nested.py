"""Walks over the nested mappings and lists of a configuration."""

from collections.abc import Callable, Iterator
from typing import Any

from pretzel.runs.config.yaml_lines import Key

APPENDS = "+"
"""Ends a key whose value is appended to a list, in place of replacing it."""


def inside(node: object, part: str) -> Any:  # noqa: ANN401
    """Return the value of a key, what is appended to its default, or an item of a list; or None."""
    if isinstance(node, dict):
        return node.get(part, node.get(part + APPENDS))
    if isinstance(node, list) and part.isdecimal() and int(part) < len(node):
        return node[int(part)]
    return None


def leaves(node: object, path: Key = ()) -> Iterator[tuple[Key, object]]:
    """Yield every value that is neither a mapping nor a list, after its path."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, (*path, str(key)))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from leaves(value, (*path, str(index)))
    else:
        yield path, node


def map_leaves(function: Callable[[Key, Any], Any], node: Any, path: Key = ()) -> Any:  # noqa: ANN401
    """Return a copy with a function of path and value in the place of each such value."""
    if isinstance(node, dict):
        return {k: map_leaves(function, value, (*path, str(k))) for k, value in node.items()}
    if isinstance(node, list):
        return [map_leaves(function, value, (*path, str(i))) for i, value in enumerate(node)]
    return function(path, node)


def listed(callbacks: Any) -> list[Any]:  # noqa: ANN401
    """Return the callbacks of a trainer's configuration, which may be none, one or a list."""
    return callbacks if isinstance(callbacks, list) else [callbacks] if callbacks else []
