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
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch import Trainer

from pretzel.runs.cli import ParseOnlyCLI
from pretzel.runs.config.class_paths import import_name
from pretzel.runs.config.explain import parameters
from pretzel.runs.config.overlay import Config, replaced
from pretzel.runs.config.yaml_lines import Key

_ABSENT: Any = object()


@dataclass(frozen=True, kw_only=True, eq=False)
class Resolved:
    """A parsed configuration. Others share its parts: it may not be modified.

    Attributes:
        values: Plain values, defaults included.
        namespace: The parser's own, from which models are built.
    """

    values: dict[str, Any]
    namespace: Namespace


@dataclass(frozen=True, kw_only=True)
class _Argument:
    """An argument that differs: where it stands, whose it is, and what is written."""

    path: Key
    owner: type
    name: str
    written: Any


class _NotAlone(Exception):
    """What differs is no argument that can be parsed alone."""


class Resolver:
    """Parses configurations of ``fit``.

    Args:
        cli: The command line's parser.

    Attributes:
        wholes: Number of configurations parsed as a whole.
        arguments: Number of arguments parsed alone.
    """

    def __init__(self, cli: ParseOnlyCLI) -> None:
        self.cli = cli
        self.wholes = self.arguments = 0
        self._same: dict[str, Resolved] = {}
        self._known: list[tuple[dict[str, Any], Resolved]] = []
        self._alone: dict[tuple[type, str, str], tuple[Any, Any]] = {}

    def __call__(self, config: Config) -> Resolved:
        """Return a parsed configuration.

        Args:
            config: What is parsed; its sources appear in the messages.

        Raises:
            UserError: If it is wrong.
        """
        text = _text(config.values)
        found = self._same.get(text)
        if found is None:
            found = self._from_known(config.values) or self._whole(config)
            self._same[text] = found
        return found

    def _whole(self, config: Config) -> Resolved:
        self.wholes += 1
        given = Config(values=deepcopy(config.values), sources=config.sources)
        namespace = self.cli.parse("fit", given)  # which modifies what is in lists
        found = Resolved(values=self.cli.resolved("fit", namespace), namespace=namespace)
        self._known.append((config.values, found))
        return found

    def _from_known(self, written: dict[str, Any]) -> Resolved | None:
        for other, resolved in self._known:
            try:
                differing = list(_groups(other, written, resolved.values))
                return self._changed(resolved, differing)
            except _NotAlone:
                continue
        return None

    def _changed(self, known: Resolved, differing: list[_Argument]) -> Resolved:
        values, namespace = known.values, known.namespace.clone()
        for argument in differing:
            plain, parsed = self._parsed(argument)
            values = replaced(values, argument.path, plain)
            namespace[".".join(("fit", *argument.path))] = parsed
        return Resolved(values=values, namespace=namespace)

    def _parsed(self, argument: _Argument) -> tuple[Any, Any]:
        """Return what an argument comes to, as a plain value and as the parser's."""
        key = (argument.owner, argument.name, _text(argument.written))
        if key not in self._alone:
            self.arguments += 1
            parser = _parser_of(argument.owner, argument.name)
            given = deepcopy(argument.written)
            written = {} if argument.written is _ABSENT else {argument.name: given}
            try:
                namespace = parser.parse_object(written)
                plain = yaml.safe_load(parser.dump(namespace, skip_unset=False))[argument.name]
            except Exception as error:  # whatever it is, the parser of the whole tells it better
                raise _NotAlone from error
            if argument.owner is Trainer and type(argument.written) is int:
                # to the Trainer, 1.0 is not 1 (see pretzel.runs.cli)
                plain = argument.written if isinstance(plain, float) else plain
            self._alone[key] = plain, namespace[argument.name]
        return self._alone[key]


@cache
def _parser_of(owner: type, name: str) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    others = set(parameters(f"{owner.__module__}.{owner.__qualname__}")) - {name}
    parser.add_class_arguments(owner, skip=set(others), fail_untyped=False, sub_configs=True)
    return parser


def _groups(
    old: dict[str, Any], new: dict[str, Any], resolved: dict[str, Any]
) -> Iterator[_Argument]:
    """Yield the arguments in which two whole configurations differ.

    Raises:
        _NotAlone: If something else differs too.
    """
    for name, before, after in _differing(old, new):
        if name == "trainer":
            old_trainer, new_trainer = ({} if one is _ABSENT else one for one in (before, after))
            if not (isinstance(old_trainer, dict) and isinstance(new_trainer, dict)):
                raise _NotAlone
            yield from _arguments(old_trainer, new_trainer, resolved[name], Trainer, (name,))
        elif _are_of_one_class(before, after):
            yield from _in_node(before, after, resolved.get(name), (name,))
        else:
            raise _NotAlone


def _arguments(
    old: dict[str, Any], new: dict[str, Any], resolved: dict[str, Any], owner: type, path: Key
) -> Iterator[_Argument]:
    for name, before, after in _differing(old, new):
        if name not in resolved:  # the class does not take it here
            raise _NotAlone
        if _are_of_one_class(before, after):
            yield from _in_node(before, after, resolved[name], (*path, name))
        else:
            yield _Argument(path=(*path, name), owner=owner, name=name, written=after)


def _in_node(before: Any, after: Any, resolved: Any, path: Key) -> Iterator[_Argument]:  # noqa: ANN401
    owner = import_name(resolved["class_path"]) if isinstance(resolved, dict) else None
    if not isinstance(owner, type):
        raise _NotAlone
    old, new = before.get("init_args") or {}, after.get("init_args") or {}
    known = resolved.get("init_args") or {}
    yield from _arguments(old, new, known, owner, (*path, "init_args"))


def _differing(old: dict[str, Any], new: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name in [*old, *(new.keys() - old.keys())]:
        before, after = old.get(name, _ABSENT), new.get(name, _ABSENT)
        if before is not after and _text(before) != _text(after):
            yield name, before, after


def _are_of_one_class(before: object, after: object) -> bool:
    """Tell whether two nodes name the same class and hold nothing but its arguments."""
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return False
    if not before.keys() | after.keys() <= {"class_path", "init_args"}:
        return False
    return "class_path" in before and before["class_path"] == after.get("class_path")


def _text(written: object) -> str:
    """Return what tells 1 from 1.0 and from true."""
    return "absent" if written is _ABSENT else json.dumps(written, sort_keys=True, default=repr)
