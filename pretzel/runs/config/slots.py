"""Slots of a configuration: the classes that may stand at a path, by the types of arguments."""

from functools import cache
from typing import Any

from pretzel.runs.config.class_paths import named_class
from pretzel.runs.config.nested import inside
from pretzel.runs.config.yaml_lines import Key

Classes = tuple[type, ...]


def slot_classes(values: dict[str, Any], path: Key) -> Classes:
    """Return the classes of which a node, or what makes one, is a subclass; none if unknown.

    Args:
        values: A configuration that names the classes around the node.
        path: Of the node, or of an item of a list of them.
    """
    from lightning.pytorch import LightningDataModule, LightningModule, Trainer

    roots: dict[str, Classes] = {"model": (LightningModule,), "data": (LightningDataModule,)}
    owner: Any = Trainer if path[:1] == ("trainer",) else None
    slot = roots.get(path[0], ()) if path else ()
    node = inside(values, path[0]) if path else None
    for part in path[1:]:
        if part == "init_args":
            name = node.get("class_path") if isinstance(node, dict) else node
            owner = named_class(name, slot) if isinstance(name, str) else None
        elif not part.isdecimal():
            slot = argument_classes(owner, part) if isinstance(owner, type) else ()
            owner = None
        node = inside(node, part)
    return slot


@cache  # reading a class's source for its arguments takes 20 ms
def argument_classes(owner: type, argument: str) -> Classes:
    """Return the classes that an argument takes or makes, items of lists and dicts included."""
    from jsonargparse import ArgumentParser
    from jsonargparse._typehints import get_subclass_types

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(owner, fail_untyped=False)
    actions = [one for one in parser._actions if one.dest == argument]
    if not actions:
        return ()
    options = {"also_containers": True, "callable_return": True}
    return get_subclass_types(actions[0], **options) or ()  # type: ignore[no-untyped-call]
