"""Arguments of the command line, laid over configuration files."""

import argparse
import itertools

import yaml

from pretzel.errors import UserError
from pretzel.runs.config.class_paths import same_class
from pretzel.runs.config.nested import APPENDS
from pretzel.runs.config.overlay import Config, at, locate, override
from pretzel.runs.config.slots import slot_classes
from pretzel.runs.config.yaml_lines import Source

COMMAND_LINE = Source(name="command line")


def split_config_files(args: list[str]) -> tuple[list[str], list[str]]:
    """Return the files that ``-c`` names, and the other arguments.

    Raises:
        UserError: If a ``-c`` names none.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-c", "--config", action="append", default=[])
    try:
        known, rest = parser.parse_known_args(args)
    except argparse.ArgumentError:
        raise UserError("command line: -c needs a file") from None
    return known.config, rest


def lay_arguments_over(files: Config, args: list[str]) -> tuple[Config, Config, list[str]]:
    """Lay command-line arguments over the files.

    Returns:
        The files, with the items of their lists that arguments number; all of it; the other
        arguments, which are the parser's.

    Raises:
        UserError: If a class swap would keep arguments, or a list has no such item.
    """
    config, rest, tokens = files, [], iter(args)
    for token in tokens:
        name, equals, text = token[2:].partition("=")
        is_flag = not token.startswith("--") or name.startswith("print_config")
        if is_flag or name in ("", "help"):
            rest.append(token)
            continue
        both = [token] if equals else [token, *itertools.islice(tokens, 1)]
        value = _value(name, text if equals else "".join(both[1:]))
        if not name.endswith(APPENDS):
            _refuse_swap(config, name, value)
        if value == {} or any(part.isdecimal() for part in name.split(".")):
            # to the parser {} is no change, and an item has no number
            files = override(files, name, value, COMMAND_LINE)
        else:
            rest += both
        config = override(config, _in_last_item(config, name), value, COMMAND_LINE)
    return files, config, rest


def _value(name: str, text: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    except RecursionError:
        raise UserError(f"command line: --{name}: nested too deeply") from None


def _in_last_item(config: Config, name: str) -> str:
    """Return a key as the parser takes one that reaches into a list: its last item is meant."""
    path: list[str] = []
    for part in name.split("."):
        node = at(config.values, locate(config.values, ".".join(path))) if path else None
        if isinstance(node, list) and not part.isdecimal():
            path.append(str(len(node) - 1))
        path.append(part)
    return ".".join(path)


def _refuse_swap(config: Config, key: str, value: object) -> None:
    path = locate(config.values, key)
    node = at(config.values, path[:-1] if path[-1] == "class_path" else path)
    if not isinstance(node, dict) or not node.get("init_args") or "class_path" not in node:
        return
    new = value.get("class_path") if isinstance(value, dict) else value
    slot = slot_classes(config.values, path[:-1] if path[-1] == "class_path" else path)
    if isinstance(new, str) and not same_class(str(node["class_path"]), new, slot):
        kept = ", ".join(node["init_args"])
        raise UserError(
            f"command line: --{key} {new} swaps {node['class_path']}, whose init_args ({kept}) "
            "could leak into the new class; put the swap in a YAML file and add it with -c"
        )
