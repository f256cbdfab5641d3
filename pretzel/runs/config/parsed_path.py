"""Path in a configuration of what a parser's report is about: it names keys and classes alone."""

import re
from collections.abc import Sequence

from pretzel.runs.config.class_paths import same_class
from pretzel.runs.config.overlay import Config, at, locate
from pretzel.runs.config.slots import slot_classes
from pretzel.runs.config.yaml_lines import Key

_IN_KEY = re.compile(r'Parser key "(?P<key>[^"]+)":')
_IN_CLASS = re.compile(r"Problem with given class_path '(?P<path>[^']+)'")
_IN_FACTORY = re.compile(r"Type .+? expects a function or a callable class: ")


def contexts(message: str) -> list[tuple[tuple[str, ...], str | None, str]]:
    """Return each line with the keys and the class it is about, read off the indentation.

    The class is empty where the report does not name it: it is the one that the keys lead to.
    """
    lines: list[tuple[tuple[str, ...], str | None, str]] = []
    keys: list[tuple[int, str]] = []
    owners: list[tuple[int, str]] = []
    for raw in message.splitlines():
        text = raw.strip()
        if not text:
            continue
        indent = len(raw) - len(raw.lstrip()) + (1 if text.startswith("- ") else 0)
        text = text.removeprefix("- ")
        keys = [item for item in keys if item[0] < indent]
        owners = [item for item in owners if item[0] < indent]
        while match := _IN_FACTORY.match(text) or _IN_KEY.match(text):
            text = text[match.end() :].strip()
            if key := match.groupdict().get("key"):
                keys.append((indent, key))
            else:
                owners.append((indent, ""))  # the class that stands there
        if match := _IN_CLASS.match(text):
            owners.append((indent, match["path"]))
        lines.append((tuple(k for _, k in keys), owners[-1][1] if owners else None, text))
    return lines


def parsed_path(
    config: Config,
    keys: Sequence[str],
    name: str | None,
    option: str | None = None,
    value: str | None = None,
) -> Key:
    """Return the path that a parser means by its nested keys.

    Args:
        config: The configuration that it has parsed.
        keys: Each inside the one before.
        name: The class that the innermost key is about, if that is told.
        option: An argument of this class that is wrong, if that is told.
        value: The wrong value as text, if that is told.
    """
    path: Key = ()
    for key in keys:
        path = _item(config, path, name, key, value)
        node = at(config.values, path) if path else config.values
        path = (*path, *locate(node if isinstance(node, dict) else {}, key))
    return _item(config, path, name, option, value)


def _item(config: Config, path: Key, name: str | None, key: str | None, value: str | None) -> Key:
    """Return the path of an item, where a list is met: that of this class, with this argument."""
    items = at(config.values, path) if path else None
    if not isinstance(items, list) or not (name or key):
        return path
    names = [str(item.get("class_path") if isinstance(item, dict) else item) for item in items]
    slot = slot_classes(config.values, path)

    def likeness(number: int) -> tuple[bool, bool, bool]:
        item, own = items[number], names[number]
        arguments = item.get("init_args") if isinstance(item, dict) else None
        has_key = isinstance(arguments, dict) and str(key).partition(".")[0] in arguments
        has_value = isinstance(arguments, dict) and has_key and str(arguments.get(key)) == value
        is_one = own == name if name in names else bool(name) and same_class(own, str(name), slot)
        return has_value, has_key, is_one

    number = max(range(len(items)), key=likeness, default=0)
    return (*path, str(number)) if items and any(likeness(number)) else path
