"""What a finished cell stands for: a hash of everything in its configuration that can change it.

This is the configuration's part of the identity. Other parts (source, data, versions) are further
entries of the mapping that is hashed.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# Where things are written and how they are shown changes no result.
_TRAINER_IGNORED = frozenset(
    {
        "logger",
        "default_root_dir",
        "enable_progress_bar",
        "enable_model_summary",
        "enable_checkpointing",
        "log_every_n_steps",
        "profiler",
    }
)
_IGNORED = frozenset({"ckpt_path", "weights_only", "config"})
_PATHS_IGNORED = frozenset({"dirpath", "save_dir"})


def essence(resolved: Mapping[str, Any], named: Mapping[str, str]) -> dict[str, Any]:
    """Return the part of a resolved configuration that can change a result.

    Args:
        resolved: The parser's configuration with all defaults.
        named: Text that stands for something else, such as the path of a stage's weights for
            the identity of that stage.
    """
    kept = {key: value for key, value in resolved.items() if key not in _IGNORED}
    trainer = kept.get("trainer") or {}
    kept["trainer"] = {k: v for k, v in trainer.items() if k not in _TRAINER_IGNORED}
    clean: dict[str, Any] = _clean(kept, named)
    return clean


def identity(essential: Mapping[str, Any]) -> str:
    """Return the hash of what :func:`essence` keeps."""
    text = json.dumps(essential, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def flatten(values: object, at: str = "") -> dict[str, Any]:
    """Return the leaves by dotted key, without the ``init_args`` in between."""
    if isinstance(values, dict) and values:
        leaves: dict[str, Any] = {}
        for key, value in values.items():
            inner = at if key == "init_args" else f"{at}.{key}" if at else str(key)
            leaves |= flatten(value, inner)
        return leaves
    return {at: values}


def changes(base: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return what differs between two essences, one line each: ``key: old -> new``."""
    old, new = flatten(dict(base)), flatten(dict(other))
    swapped = [
        key.removesuffix(".class_path")
        for key in old.keys() | new.keys()
        if key.endswith(".class_path") and old.get(key) != new.get(key)
    ]
    lines = []
    for key in sorted(old.keys() | new.keys()):
        node = key.removesuffix(".class_path")
        inside = any(key.startswith(f"{part}.") and key != f"{part}.class_path" for part in swapped)
        if old.get(key) == new.get(key) and key in old and key in new:
            continue
        if node in swapped and not inside:
            if key != node:  # a null in the place of a class is told with its class_path
                lines.append(f"{node}: {_short(old.get(key))} -> {_short(new.get(key))}")
        elif not inside:
            lines.append(f"{key}: {_short(old.get(key))} -> {_short(new.get(key))}")
    return lines


def _short(value: object) -> str:
    if isinstance(value, list) and all(isinstance(v, dict) and "class_path" in v for v in value):
        return f"[{', '.join(v['class_path'].rpartition('.')[2] for v in value)}]"
    text = value.rpartition(".")[2] if isinstance(value, str) and "/" not in value else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _clean(node: Any, named: Mapping[str, str]) -> Any:  # noqa: ANN401
    if isinstance(node, dict):
        return {k: _clean(v, named) for k, v in node.items() if k not in _PATHS_IGNORED}
    if isinstance(node, list):
        return [_clean(value, named) for value in node]
    if isinstance(node, str):
        for written, meant in named.items():
            node = node.replace(written, meant)
    return node
