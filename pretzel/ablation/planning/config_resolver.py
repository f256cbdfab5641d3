"""Configurations as the real parser understands them, each part of them parsed once.

Parsing a whole configuration takes about a second: the parser goes through every part again at
each level above it. The arms of a grid differ in few arguments. What an argument of a class comes
to depends on its type and on what is written, and on nothing else, so it is parsed alone, by the
same parser, and put into a configuration that was parsed as a whole. Where that cannot be done, or
goes wrong, the whole is parsed; mistakes are always told by the parser of the whole.
"""

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch import Trainer

from pretzel.runs.cli import ParseOnlyCLI
from pretzel.runs.config.class_paths import import_name
from pretzel.runs.config.explain import parameters
from pretzel.runs.config.overlay import Config, replaced
from pretzel.runs.config.typed_parser import TypedParser
from pretzel.runs.config.yaml_lines import Key

_ABSENT: Any = object()


@dataclass(frozen=True, kw_only=True, eq=False)
class Resolved:
    """A parsed configuration: plain values with defaults, and the namespace to build models from.

    Others share its parts: it may not be modified.
    """

    values: dict[str, Any]
    namespace: Namespace


class _NotAlone(Exception):
    """The difference is no argument that can be parsed alone."""


class Resolver:
    """Parses configurations of ``fit``.

    Attributes:
        wholes: Number of configurations parsed as a whole.
        arguments: Number of arguments parsed alone.
    """

    def __init__(self, cli: ParseOnlyCLI) -> None:
        self.cli = cli
        self.wholes = self.arguments = 0
        self._by_text: dict[str, Resolved] = {}
        self._parsed_whole: list[tuple[dict[str, Any], Resolved]] = []
        self._parsed_alone: dict[tuple[type, str, str], tuple[Any, Any]] = {}

    def __call__(self, config: Config) -> Resolved:
        """Return a parsed configuration.

        Raises:
            UserError: If it is wrong.
        """
        text = as_text(config.values)
        if text not in self._by_text:
            self._by_text[text] = self._from_similar(config.values) or self._parse_whole(config)
        return self._by_text[text]

    def _parse_whole(self, config: Config) -> Resolved:
        self.wholes += 1
        # the parser modifies what is in lists
        copied = Config(values=deepcopy(config.values), sources=config.sources)
        namespace = self.cli.parse("fit", copied)
        resolved = Resolved(values=self.cli.resolved("fit", namespace), namespace=namespace)
        self._parsed_whole.append((config.values, resolved))
        return resolved

    def _from_similar(self, written: dict[str, Any]) -> Resolved | None:
        """Return a configuration made of one that was parsed whole; None if none is similar."""
        for similar, resolved in self._parsed_whole:
            try:
                arguments = list(_differences(similar, written, resolved.values, None, ()))
                values, namespace = resolved.values, resolved.namespace.clone()
                for path, owner, value in arguments:
                    plain, parsed = self._parse_alone(owner, path[-1], value)
                    values = replaced(values, path, plain)
                    namespace[".".join(("fit", *path))] = parsed
                return Resolved(values=values, namespace=namespace)
            except _NotAlone:
                continue
        return None

    def _parse_alone(self, owner: type, name: str, written: Any) -> tuple[Any, Any]:  # noqa: ANN401
        """Return the value of a class's argument, as a plain value and as the parser's."""
        key = (owner, name, as_text(written))
        if key not in self._parsed_alone:
            self.arguments += 1
            parser = _parser_of(owner, name)
            try:
                values = {} if written is _ABSENT else {name: deepcopy(written)}
                namespace = parser.parse_object(values)
                plain = yaml.safe_load(parser.dump(namespace, skip_unset=False))[name]
            except Exception as error:  # whatever it is, the parser of the whole tells it better
                raise _NotAlone from error
            if owner is Trainer and type(written) is int and isinstance(plain, float):
                plain = written  # to the Trainer, 1.0 is not 1 (see pretzel.runs.cli)
            self._parsed_alone[key] = plain, namespace[name]
        return self._parsed_alone[key]


@cache
def _parser_of(owner: type, name: str) -> TypedParser:
    parser = TypedParser(exit_on_error=False)
    others = set(parameters(f"{owner.__module__}.{owner.__qualname__}")) - {name}
    parser.add_class_arguments(owner, skip=set(others), fail_untyped=False, sub_configs=True)
    return parser


def _differences(
    old: dict[str, Any],
    new: dict[str, Any],
    resolved: dict[str, Any],
    owner: type | None,
    path: Key,
) -> Iterator[tuple[Key, type, Any]]:
    """Yield the arguments in which two configurations differ, as deep as they can be parsed alone.

    Each is its path, the class that takes it, and the value written for it. Compared are whole
    configurations, or the arguments in them of a class, the owner; the old one is parsed.

    Raises:
        _NotAlone: If something else differs too.
    """
    for name in [*old, *(new.keys() - old.keys())]:
        before, after = old.get(name, _ABSENT), new.get(name, _ABSENT)
        if before is after or as_text(before) == as_text(after):
            continue
        if name not in resolved:  # the class does not take it here
            raise _NotAlone
        here, node = (*path, name), resolved[name]
        if here == ("trainer",):
            before, after = ({} if one is _ABSENT else one for one in (before, after))
            if not (isinstance(before, dict) and isinstance(after, dict)):
                raise _NotAlone
            yield from _differences(before, after, node, Trainer, here)
        elif _are_of_one_class(before, after):
            inner = import_name(node["class_path"]) if isinstance(node, dict) else None
            if not isinstance(inner, type):
                raise _NotAlone
            first, second, known = (one.get("init_args") or {} for one in (before, after, node))
            yield from _differences(first, second, known, inner, (*here, "init_args"))
        elif owner is None:
            raise _NotAlone
        else:
            yield here, owner, after


def _are_of_one_class(before: object, after: object) -> bool:
    """Tell whether two nodes name the same class and hold nothing but its arguments."""
    if not (isinstance(before, dict) and isinstance(after, dict) and "class_path" in before):
        return False
    names_others = not before.keys() | after.keys() <= {"class_path", "init_args"}
    return before["class_path"] == after.get("class_path") and not names_others


def as_text(values: object) -> str:
    """Return plain values as text, in which 1 is not 1.0 and not true."""
    return "absent" if values is _ABSENT else json.dumps(values, sort_keys=True, default=repr)
