"""YAML files, with the line on which each key stands."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from typing_extensions import override

from pretzel.errors import UserError

Key = tuple[str, ...]

_MAX_KEYS = 50_000  # a few aliases of aliases can stand for billions
_MAX_LEVELS = 100  # an alias inside itself has no end
_MAX_CHARACTERS = 10_000_000  # an alias may stand for a long text


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

    levels = 0

    @override
    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.levels += 1
        if self.levels > _MAX_LEVELS:  # before far more text is read, which takes a second
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise _too_large(mark, f"nested deeper than {_MAX_LEVELS} levels")
        node = super().compose_node(parent, index)
        self.levels -= 1
        return node


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
        UserError: If the file cannot be read, is not YAML, is not a mapping, repeats a key, or has
            too many keys or levels.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    try:
        values, sources = parsed(text, str(path))
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f":{error.problem_mark.line + 1}"
        raise UserError(f"{path}{line}: not valid YAML, {error.problem}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML ({error})") from error
    if values is None:
        return {}, {}
    if not isinstance(values, dict):
        raise UserError(f"{path}: must hold a mapping of keys to values, got {values!r:.80}")
    return values, sources


def parsed(text: str, name: str) -> tuple[Any, dict[Key, Source]]:
    """Return the values of YAML in a file of that name, and the line of each key and list item.

    Raises:
        yaml.YAMLError: If it is not YAML.
        UserError: If it repeats a key, or has too many keys or levels.
    """
    loader = _Loader(text)
    loader.name = name
    try:
        node, lines = loader.get_single_node(), _Lines()
        if node is None:
            return None, {}
        lines.collect(node, ())
        return loader.construct_document(node), lines.sources
    finally:
        loader.dispose()


class _Lines:
    """The line of every key and list item of a file; refuses repeated keys, and too many."""

    def __init__(self) -> None:
        self.sources: dict[Key, Source] = {}
        self.characters = 0

    def collect(self, node: yaml.Node, at: Key) -> None:
        """Add what is under a node, aliases followed."""
        if len(at) > _MAX_LEVELS:
            raise _too_large(node.start_mark, f"nested deeper than {_MAX_LEVELS} levels")
        children: list[tuple[str, yaml.Node, yaml.Node]] = []
        if isinstance(node, yaml.SequenceNode):
            children = [(str(index), item, item) for index, item in enumerate(node.value)]
        elif isinstance(node, yaml.MappingNode):
            children = [(str(key.value), key, value) for key, value in node.value]
        else:
            self.characters += len(node.value)
        seen: set[str] = set()
        for key, marked, value in children:
            mark, plain = marked.start_mark, key.removesuffix("+")
            source = Source(name=mark.name, line=mark.line + 1)
            if key in seen and key != "<<":  # merge keys may stand several times
                raise UserError(f"{source}: key '{key}' is given twice in the same mapping")
            if f"{key}+" in seen or (plain != key and plain in seen):
                why = "is both given and appended to in the same mapping; write the list whole"
                raise UserError(f"{source}: key '{plain}' {why}")
            if len(self.sources) >= _MAX_KEYS:
                raise _too_large(mark, f"more than {_MAX_KEYS} keys and items, aliases followed")
            if self.characters > _MAX_CHARACTERS:
                raise _too_large(mark, f"more than {_MAX_CHARACTERS} characters, aliases followed")
            seen.add(key)
            self.sources[(*at, key)] = source
            self.collect(value, (*at, key))


def _too_large(mark: yaml.Mark, why: str) -> UserError:
    return UserError(f"{mark.name}:{mark.line + 1}: {why}")
