"""Fold configurations over one another: a changed ``class_path`` replaces the whole node.

jsonargparse keeps the ``init_args`` that the old and the new class both accept: a base ``A(k=3)``
overlaid with ``{class_path: B}`` silently becomes ``B(k=3)``. In an ablation that is an invisible
confounder, so the grid and ``pretzel fit -c a.yaml -c b.yaml`` fold their files here, before the
parser sees them.

The rules:

- mappings merge; numbers, strings and lists replace; ``null`` replaces;
- a mapping with another ``class_path`` (or a bare class name) replaces the node;
- one class under two names (``AdamW``, ``torch.optim.AdamW``) is no change;
- ``{k: 1}`` or a dotted key ``part.k`` over a class node means its ``init_args``;
- a path that exists beside the file that names it, and not in the working directory, is the one
  beside the file; ``model: model.yaml`` takes that file in.
"""

import os
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pretzel.errors import UserError
from pretzel.runs.config.class_paths import same_class
from pretzel.runs.config.yaml_lines import Key, Source, read_mapping

CLASS_KEYS = frozenset({"class_path", "init_args", "dict_kwargs"})
_FILES_TAKEN_IN = ("trainer", "model", "data", "optimizer", "lr_scheduler")


@dataclass(frozen=True, kw_only=True)
class Config:
    """A configuration and where each of its keys was written.

    Attributes:
        values: Nested plain values, as YAML gives them.
        sources: Where a key was written, by its path.
    """

    values: dict[str, Any]
    sources: dict[Key, Source] = field(default_factory=dict)

    def source(self, key: Key) -> Source | None:
        """Return where a key was written, or the nearest mapping that holds it."""
        for length in range(len(key), 0, -1):
            if key[:length] in self.sources:
                return self.sources[key[:length]]
        return None


def read(path: str | Path) -> Config:
    """Read one configuration file; its relative paths and dotted keys are resolved.

    Args:
        path: A YAML or JSON file.

    Raises:
        UserError: If it cannot be read or is not a mapping.
    """
    values, sources = read_mapping(path)
    folder = Path(path).parent
    values = {key: _beside(value, folder) for key, value in values.items()}
    for group in _FILES_TAKEN_IN:
        value = values.get(group)
        if isinstance(value, str) and value.endswith((".yaml", ".yml", ".json")):
            inner = read(value)
            values[group] = inner.values
            sources |= {(group, *key): source for key, source in inner.sources.items()}
    config = Config(values={}, sources={})
    for key, value in values.items():
        inner_sources = {at[1:]: source for at, source in sources.items() if at[0] == key}
        config = _put(config, tuple(key.split(".")), value, inner_sources)
    return config


def fold(configs: Sequence[Config]) -> Config:
    """Lay configurations over one another, the last one on top.

    Args:
        configs: From :func:`read` or earlier folds; they are not modified.

    Returns:
        The folded configuration, with the source of every key kept.
    """
    values: dict[str, Any] = {}
    sources: dict[Key, Source] = {}
    for config in configs:
        values = _merge(values, config.values, (), sources, config.sources)
    return Config(values=values, sources=sources)


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
        if part not in CLASS_KEYS and _is_class_node(node):
            path.append("init_args")
            node = node.get("init_args") if isinstance(node, dict) else None
        path.append(part)
        node = node.get(part) if isinstance(node, dict) else None
    return tuple(path)


def at(values: dict[str, Any], key: Key) -> Any | None:  # noqa: ANN401
    """Return what stands at a path, or None."""
    node: Any = values
    for part in key:
        if isinstance(node, list) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        elif isinstance(node, dict) and part in node:
            node = node[part]
        else:
            return None
    return node


def replaced(values: dict[str, Any], path: Key, value: object) -> dict[str, Any]:
    """Return values with another one at a path; the mappings on the way are copied."""
    first, *rest = path
    return {**values, first: replaced(values[first], tuple(rest), value) if rest else value}


def _put(config: Config, key: Key, value: Any, inner: dict[Key, Source]) -> Config:  # noqa: ANN401
    nested = value
    for part in reversed(key):
        nested = {part: nested}
    sources = {(*key, *path): source for path, source in inner.items()}
    return fold([config, Config(values=nested, sources=sources)])


def _is_class_node(node: object) -> bool:
    return isinstance(node, str) or (isinstance(node, dict) and "class_path" in node)


def _merge(
    base: Any,  # noqa: ANN401
    over: Any,  # noqa: ANN401
    path: Key,
    sources: dict[Key, Source],
    over_sources: dict[Key, Source],
) -> Any:  # noqa: ANN401
    """Return ``over`` laid over ``base``; ``sources`` is brought up to date in place."""
    # a bare class name: it replaces the node, unless it names the class that stands there
    if isinstance(over, str) and _class_of(base) is not None and isinstance(base, dict):
        if _same(str(_class_of(base)), over, path, over_sources):
            return base
    elif isinstance(over, dict):
        if isinstance(base, str) and over.keys() & CLASS_KEYS:
            base = {"class_path": base}
        elif isinstance(base, dict) and "class_path" in base and not over.keys() & CLASS_KEYS:
            over = {"init_args": over} if over else {}
            over_sources = _into_init_args(over_sources, path)
        if isinstance(base, dict) and not _replaces(base, over, path, over_sources):
            if path in over_sources:
                sources[path] = over_sources[path]
            merged = dict(base)
            for key, value in over.items():
                inner = (*path, key)
                merged[key] = _merge(merged.get(key), value, inner, sources, over_sources)
            return merged
    # a replaced node takes its lines along: messages would point at what no longer counts
    for key in [key for key in sources if key[: len(path)] == path]:
        del sources[key]
    sources.update({k: s for k, s in over_sources.items() if k[: len(path)] == path})
    return deepcopy(over)


def _into_init_args(sources: dict[Key, Source], path: Key) -> dict[Key, Source]:
    """Move the sources below ``path`` one level down, into ``init_args``."""
    size = len(path)
    return {
        (*path, "init_args", *key[size:]) if key[:size] == path and len(key) > size else key: source
        for key, source in sources.items()
    }


def _replaces(base: dict[str, Any], over: dict[str, Any], path: Key, sources: Any) -> bool:  # noqa: ANN401
    """Tell whether a mapping replaces the node it is laid over instead of merging with it."""
    name = _class_of(over)
    if name is None:
        return False
    old = _class_of(base)
    return bool(base) and (old is None or not _same(old, name, path, sources))


def _same(old: str, new: str, path: Key, sources: dict[Key, Source]) -> bool:
    try:
        return same_class(old, new)
    except UserError as error:
        where = sources.get((*path, "class_path")) or sources.get(path)
        raise UserError(f"{where}: {'.'.join(path)}: {error}") from error


def _class_of(node: object) -> str | None:
    if isinstance(node, dict) and isinstance(node.get("class_path"), str):
        return str(node["class_path"])
    return None


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
