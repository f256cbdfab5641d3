"""Fold configurations over one another: a changed ``class_path`` replaces the whole node.

jsonargparse keeps the ``init_args`` that the old and the new class both accept: a base ``A(k=3)``
overlaid with ``{class_path: B}`` silently becomes ``B(k=3)``. In an ablation that is an invisible
confounder, so the grid and ``pretzel fit -c a.yaml -c b.yaml`` fold their files here, before the
parser sees them.

The rules:

- mappings merge; numbers, strings and lists replace; ``null`` replaces;
- ``{}`` clears a mapping; an empty section (``trainer:``) is an empty mapping, too, but over one
  that holds something it is refused: it might be a leftover;
- ``key+`` appends an item, or a list of them; ``key.0`` is the first item of a list;
- a mapping with another ``class_path`` (or a bare class name) replaces the node;
- one class under two names (``AdamW``, ``torch.optim.AdamW``) is no change;
- ``{k: 1}`` or a dotted key ``part.k`` over a class node means its ``init_args``;
- a path that exists beside the file that names it, and not in the working directory, is the one
  beside the file; ``model: model.yaml`` takes that file in.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pretzel.runs.config.layer import CLASS_KEYS, SECTIONS, Layer, is_class_node
from pretzel.runs.config.nested import APPENDS, inside
from pretzel.runs.config.yaml_lines import Key, Source, read_mapping


@dataclass(frozen=True, kw_only=True)
class Config:
    """A configuration and where each of its keys was written.

    Attributes:
        values: Nested plain values, as YAML gives them; of one file, as it stands there.
        sources: Where a key was written, by its path.
    """

    values: dict[str, Any]
    sources: dict[Key, Source] = field(default_factory=dict)

    def source(self, key: Key) -> Source | None:
        """Return where a key was written, or the nearest mapping that holds it."""
        # what is appended to a default is still written as it was
        plain = {tuple(part.removesuffix(APPENDS) for part in at): at for at in self.sources}
        for length in range(len(key), 0, -1):
            if key[:length] in plain:
                return self.sources[plain[key[:length]]]
        return None


def read(path: str | Path) -> Config:
    """Read one configuration file; its relative paths are resolved.

    Args:
        path: A YAML or JSON file.

    Returns:
        The keys as they are written; :func:`fold` lays them over others.

    Raises:
        UserError: If it cannot be read or is not a mapping.
    """
    values, sources = read_mapping(path)
    folder = Path(path).parent
    values = {str(key): _beside(value, folder) for key, value in values.items()}
    for group in SECTIONS:
        value = values.get(group)
        if isinstance(value, str) and value.endswith((".yaml", ".yml", ".json")):
            inner = fold([read(value)])
            values[group] = inner.values
            sources |= {(group, *key): source for key, source in inner.sources.items()}
    return Config(values=values, sources=sources)


def fold(configs: Sequence[Config]) -> Config:
    """Lay configurations over one another, the last one on top.

    Args:
        configs: From :func:`read` or earlier folds; they are not modified.

    Returns:
        The folded configuration, with the source of every key kept.

    Raises:
        UserError: If a list or an empty section is laid over what it cannot be laid over, or a
            short class name could be several classes.
    """
    folded = Config(values={})
    for config in configs:
        # key by key: a dotted one may reach into what stands above it
        for key, value in config.values.items():
            inner = {at[1:]: source for at, source in config.sources.items() if at[:1] == (key,)}
            folded = _put(folded, locate(folded.values, str(key)), value, inner)
    return folded


def override(config: Config, key: str, value: Any, source: Source) -> Config:  # noqa: ANN401
    """Lay one dotted key over a configuration.

    Args:
        config: What is changed; it is not modified.
        key: For example ``model.init_args.flow.init_args.depth`` or ``model.flow.depth``.
        value: Any YAML value; a mapping merges, a changed class replaces the node.
        source: Where the override was written.
    """
    return _put(config, locate(config.values, key), value, {(): source})


def locate(values: dict[str, Any], key: str) -> Key:
    """Return the path of a dotted key, stepping into ``init_args`` where a class node is met."""
    node: Any = values
    path: list[str] = []
    for part in key.split("."):
        if part not in CLASS_KEYS and is_class_node(node):
            path.append("init_args")
            node = inside(node, "init_args")
        path.append(part)
        node = inside(node, part)
    return tuple(path)


def at(values: dict[str, Any], key: Key) -> Any | None:  # noqa: ANN401
    """Return what stands at a path, or None."""
    node: Any = values
    for part in key:
        node = inside(node, part)
    return node


def replaced(values: dict[str, Any], path: Key, value: object) -> dict[str, Any]:
    """Return values with another one at a path; the mappings on the way are copied."""
    first, *rest = path
    return {**values, first: replaced(values[first], tuple(rest), value) if rest else value}


def _put(config: Config, key: Key, value: Any, inner: dict[Key, Source]) -> Config:  # noqa: ANN401
    nested = value
    for part in reversed(key):
        nested = {part: nested}
    written = {(*key, *path): source for path, source in inner.items()}
    layer = Layer(root=config.values, written=written, sources=dict(config.sources))
    return Config(values=layer.over(config.values, nested, ()), sources=layer.sources)


def _beside(value: Any, folder: Path) -> Any:  # noqa: ANN401
    """Resolve the relative paths of a file against its folder, where only there they exist."""
    if isinstance(value, dict):
        return {key: _beside(inner, folder) for key, inner in value.items()}
    if isinstance(value, list):
        return [_beside(inner, folder) for inner in value]
    if not isinstance(value, str) or not value or "\n" in value or len(value) > 1000:
        return value
    # a plain word is a name: a folder that happens to be called so must not change its meaning
    looks_like_a_path = "/" in value or bool(Path(value).suffix)
    if not looks_like_a_path or os.path.isabs(value) or os.path.exists(value):
        return value
    candidate = folder / value
    return os.path.relpath(candidate) if os.path.exists(candidate) else value
