"""Arguments of a command that change a configuration: ``--model.guidance.weight 2``."""

import argparse
from typing import Any

from pretzel.cli.yaml_value import yaml_value
from pretzel.errors import UserError, did_you_mean


def overrides(
    words: list[str], parser: argparse.ArgumentParser, sections: tuple[str, ...]
) -> list[tuple[str, Any]]:
    """Return the dotted keys and the values that the remaining words of a command line name.

    Args:
        words: What the parser has left.
        parser: Its options are suggested.
        sections: Sections of the configuration that may be changed.

    Raises:
        UserError: If a word is something else, or a key has no value.
    """
    pairs = []
    remaining = iter(words)
    for word in remaining:
        option, equals, text = word.partition("=")
        if option.partition(".")[0] not in [f"--{section}" for section in sections]:
            names = [name for action in parser._actions for name in action.option_strings]
            raise UserError(f"unknown argument '{option}'{did_you_mean(option, names)}")
        value = yaml_value(option, text if equals else next(remaining, None))
        pairs.append((option[2:], value))
    return pairs
