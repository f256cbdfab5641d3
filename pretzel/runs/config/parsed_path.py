"""Path in a configuration of what a parser's report is about: it names keys and classes alone."""

from collections.abc import Sequence

from pretzel.runs.config.class_paths import same_class
from pretzel.runs.config.overlay import Config, at, locate
from pretzel.runs.config.slots import slot_classes
from pretzel.runs.config.yaml_lines import Key


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
