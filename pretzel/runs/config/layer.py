"""Lays one configuration over another, by the rules of :mod:`pretzel.runs.config.overlay`."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from pretzel.errors import UserError
from pretzel.runs.config.class_paths import same_class
from pretzel.runs.config.nested import APPENDS
from pretzel.runs.config.slots import slot_classes
from pretzel.runs.config.yaml_lines import Key, Source

CLASS_KEYS = frozenset({"class_path", "init_args", "dict_kwargs"})
SECTIONS = ("trainer", "model", "data")
_SECTION_PATHS = frozenset((name,) for name in SECTIONS)


def is_class_node(node: object) -> bool:
    """Tell whether a value names a class: a mapping with ``class_path``, or perhaps a text."""
    return isinstance(node, str) or (isinstance(node, dict) and "class_path" in node)


@dataclass
class Layer:
    """A configuration that is laid over others.

    Attributes:
        root: All values below it.
        written: Where its own keys are written.
        sources: Where the keys of the result are written; brought up to date in place.
    """

    root: dict[str, Any]
    written: dict[Key, Source]
    sources: dict[Key, Source]

    def over(self, base: Any, value: Any, path: Key) -> Any:  # noqa: ANN401
        """Return a value laid over what stands at a path; neither is modified.

        Raises:
            UserError: If it cannot be laid over that.
        """
        if value is None and (path[-1:] == ("init_args",) or path in _SECTION_PATHS):
            if base:
                why = f"is empty over keys that are set{self.below(path)}"
                raise self.wrong(path, f"{why}: leave it out, or write {{}} to clear them")
            value = None if path in (("model",), ("data",)) else {}  # those need a class
        name = _class_of(base)
        # a bare class name: it replaces the node, unless it names the class that stands there
        if isinstance(value, str) and name is not None and self.is_same(name, value, path):
            return base
        if not isinstance(value, dict):
            self.replace(base, value, path)
            return deepcopy(value)
        names_items = bool(value) and all(str(key).isdecimal() for key in value)
        if base is None and names_items and slot_classes(self.root, path):
            base = []  # of classes, which have no such arguments
        if isinstance(base, list) and "class_path" not in value:
            return self.over_items(base, value, path)
        if isinstance(base, str) and value.keys() & CLASS_KEYS:
            base = {"class_path": base}
        elif name is not None and not value.keys() & CLASS_KEYS:
            value = {"init_args": value}
            self.written = _moved(self.written, path, (*path, "init_args"))
        if path and (not isinstance(base, dict) or not value or self.is_swap(base, value, path)):
            self.replace(base, {}, path)
            base = {}
        if path in self.written:
            self.sources[path] = self.written[path]
        merged = dict(base)
        for key, inner in value.items():
            if str(key).endswith(APPENDS):
                self.append(merged, str(key), inner, path)
                continue
            place, appended = (*path, str(key)), f"{key}{APPENDS}"
            if appended in merged and isinstance(inner, dict) and "class_path" not in inner:
                key = appended  # the items known are those that are appended
                self.written = _moved(self.written, place, (*path, appended))
                place = (*path, appended)
            elif appended in merged:
                self.replace(merged.pop(appended), {}, (*path, appended))
            merged[key] = self.over(merged.get(key), inner, place)
        return merged

    def over_items(self, base: list[Any], value: dict[Any, Any], path: Key) -> list[Any]:
        """Return a list with those of its items changed that the keys of a mapping number."""
        if not value:
            raise self.wrong(path, f"must be [] to clear a list{self.below(path)}, got {{}}")
        merged = list(base)
        for key, inner in value.items():
            place = (*path, str(key))
            if not place[-1].isdecimal() or int(key) >= len(merged):
                count = f"{len(merged)} items, numbered from 0{self.below(path)}"
                raise self.wrong(place, f"no such item: {'.'.join(path)} is a list of {count}")
            if inner is None and is_class_node(merged[int(key)]):
                raise self.wrong(place, "an item cannot be null: write the list without it")
            merged[int(key)] = self.over(merged[int(key)], inner, place)
        return merged

    def append(self, merged: dict[Any, Any], key: str, value: Any, path: Key) -> None:  # noqa: ANN401
        """Append an item or a list of them to a list in a mapping.

        Where there is none the key stays as it is: the parser knows the default to append to.
        """
        written, plain = (*path, key), key.removesuffix(APPENDS)
        name = plain if plain in merged else key
        place, below = (*path, name), merged.get(name)
        if value is None:
            raise self.wrong(written, "must be an item to append or a list of them, got None")
        if is_class_node(below):  # one in the place of a list of one
            self.sources = _moved(self.sources, place, (*place, "0"))
            below = [below]
        elif not (below is None or isinstance(below, list)):
            why = f"appends to a list, and {plain} is {below!r}{self.below(place)}"
            raise self.wrong(written, why)
        items, where = [*(below or ())], self.source(written)
        for number, item in enumerate(value if isinstance(value, list) else [value]):
            own = (*written, str(number)) if isinstance(value, list) else written
            new = (*place, str(len(items)))
            for inner in _paths(item, ()):
                self.sources[*new, *inner] = self.written.get((*own, *inner), where)
            items.append(deepcopy(item))
        self.sources.setdefault(place, where)
        merged[name] = items

    def replace(self, base: object, value: object, path: Key) -> None:
        """Note where a value is written; forget it of what it replaces, which counts no more."""
        for key in _paths(base, path):
            self.sources.pop(key, None)
        for key in _paths(value, path):
            if key in self.written:
                self.sources[key] = self.written[key]

    def is_swap(self, base: dict[str, Any], value: dict[str, Any], path: Key) -> bool:
        """Tell whether a mapping replaces the node it is laid over instead of merging with it."""
        old, new = _class_of(base), _class_of(value)
        return bool(base) and new is not None and (old is None or not self.is_same(old, new, path))

    def is_same(self, old: str, new: str, path: Key) -> bool:
        """Tell whether two ``class_path`` values name one class at a path."""
        is_short = "." not in old or "." not in new
        try:
            return same_class(old, new, slot_classes(self.root, path) if is_short else ())
        except UserError as error:
            raise self.wrong(path, str(error)) from error

    def source(self, path: Key) -> Source:
        """Return where a key was written, or the nearest mapping that holds it."""
        lengths = range(len(path), 0, -1)
        near = (self.written[path[:n]] for n in lengths if path[:n] in self.written)
        # behind a dotted key nothing but its value was written
        return next(near, next(iter(self.written.values()), Source(name="configuration")))

    def below(self, path: Key) -> str:
        """Return where what a value is laid over was written, in brackets."""
        return f" ({self.sources[path]})" if path in self.sources else ""

    def wrong(self, path: Key, message: str) -> UserError:
        """Return the error of a key."""
        return UserError(f"{self.source(path)}: {'.'.join(path)}: {message}")


def _class_of(node: object) -> str | None:
    if isinstance(node, dict) and isinstance(node.get("class_path"), str):
        return str(node["class_path"])
    return None


def _paths(node: object, path: Key) -> Iterator[Key]:
    """Yield the path of a value and of everything in it."""
    yield path
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _paths(value, (*path, str(key)))


def _moved(sources: dict[Key, Source], old: Key, new: Key) -> dict[Key, Source]:
    """Return sources with what is inside one path moved to another."""
    size = len(old)
    return {
        (*new, *key[size:]) if key[:size] == old and key != old else key: source
        for key, source in sources.items()
    }
