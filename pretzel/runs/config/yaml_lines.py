"""YAML files that remember on which line each key stands."""

import re
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pretzel.errors import UserError

Key = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a value was written.

    Attributes:
        name: A file as the user named it, or "command line".
        line: Line in the file, counted from 1; None where there is none.
    """

    name: str
    line: int | None = None

    def __str__(self) -> str:
        return self.name if self.line is None else f"{self.name}:{self.line}"


class _Loader(yaml.SafeLoader):
    """YAML 1.1 without its two traps: ``1e-3`` is a number, and dates are not made of strings."""


_Loader.yaml_implicit_resolvers = {
    letter: [
        (tag, regexp) for tag, regexp in resolvers if not tag.endswith((":float", ":timestamp"))
    ]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?"
        r"|[0-9][0-9_]*[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def read_mapping(path: str | Path) -> tuple[dict[str, Any], dict[Key, Source]]:
    """Read a YAML file that holds one mapping.

    Args:
        path: The file, as the user named it; messages name it the same way.

    Returns:
        The values, and the line of each key and list item by its path.

    Raises:
        UserError: If the file cannot be read, is not YAML, is not a mapping or repeats a key.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return {}, {}
            sources = _lines(node, str(path))
            values = loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f":{error.problem_mark.line + 1}"
        raise UserError(f"{path}{line}: not valid YAML, {error.problem}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML ({error})") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: must hold a mapping of keys to values, got {values!r}")
    return values, sources


def _lines(node: yaml.Node, name: str, at: Key = ()) -> dict[Key, Source]:
    """Return the line of every key and list item under a node; refuse repeated keys."""
    found: dict[Key, Source] = {}
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            found[(*at, str(index))] = Source(name=name, line=item.start_mark.line + 1)
            found |= _lines(item, name, (*at, str(index)))
    if not isinstance(node, yaml.MappingNode):
        return found
    seen: set[Hashable] = set()
    for key_node, value_node in node.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        if key in seen and key != "<<":
            raise UserError(f"{name}:{line}: key '{key}' is given twice in the same mapping")
        seen.add(key)
        found[(*at, key)] = Source(name=name, line=line)
        found |= _lines(value_node, name, (*at, key))
    return found
