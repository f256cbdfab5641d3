"""Differences between two configurations, in lines for people."""

from collections.abc import Mapping
from typing import Any


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
    """Return what differs between two configurations, one line each: ``key: old -> new``."""
    old, new = flatten(dict(base)), flatten(dict(other))
    swapped = [
        key.removesuffix(".class_path")
        for key in old.keys() | new.keys()
        if key.endswith(".class_path") and old.get(key) != new.get(key)
    ]
    lines = []
    for key in sorted(old.keys() | new.keys()):
        node = key.removesuffix(".class_path")
        is_inside = any(key.startswith(f"{n}.") and key != f"{n}.class_path" for n in swapped)
        is_equal = key in old and key in new and old[key] == new[key]
        # a class in the place of null is told with its class_path
        is_told = node in swapped and key == node
        if not (is_equal or is_inside or is_told):
            lines.append(f"{node}: {_short(old.get(key))} -> {_short(new.get(key))}")
    return lines


def _short(value: object) -> str:
    if isinstance(value, list) and all(isinstance(v, dict) and "class_path" in v for v in value):
        return f"[{', '.join(v['class_path'].rpartition('.')[2] for v in value)}]"
    text = value.rpartition(".")[2] if isinstance(value, str) and "/" not in value else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
