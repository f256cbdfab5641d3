"""Mistakes of a configuration in one sentence: file, key, value, and the name that was meant."""

import argparse
import contextlib
import difflib
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from types import TracebackType
from typing import Any

from jsonargparse import ArgumentParser
from lightning.fabric.utilities.exceptions import MisconfigurationException

from pretzel.errors import NotApplicable, UserError, did_you_mean
from pretzel.runs.config.class_paths import import_name
from pretzel.runs.config.nested import leaves
from pretzel.runs.config.overlay import Config, at
from pretzel.runs.config.parsed_path import contexts, parsed_path
from pretzel.runs.config.yaml_lines import Key

# The parser's findings, the most telling first: a union reports one finding for each member.
_FINDINGS = (
    re.compile(r"Multiple subclasses with name (?P<several>\w+)\. Give .+ambiguity: (?P<all>.+)\."),
    re.compile(r"Option '(?P<option>[^']+)' is not accepted"),
    re.compile(r"(Group '(?P<group>[^']+)' )?does not accept option '(?P<unknown>[^']+)'"),
    re.compile(r"No module named '(?P<module>[^']+)'"),
    re.compile(r"module '(?P<owner>[^']+)' has no attribute '(?P<attribute>[^']+)'"),
    re.compile(r"the following arguments are required: (?P<required>.+)"),
    re.compile(
        r"Import path (?P<path>\S+) does not correspond to a subclass of (?P<base>.+?)"
        r"(?:\. Got value: .*)?$"
    ),
    re.compile(
        r"Expected '(?P<path>[^']+)' to be a .*(subclass of|that returns) (?P<base>.+?)\.?$"
    ),
    re.compile(r"Expected a dot import path string: (?P<short>.+)"),
    re.compile(r"Not a valid subclass of (?P<kind>\w+)\. Got value"),
    re.compile(r"unrecognized arguments: (?P<arguments>.+)"),
)
_EXPECTED = re.compile(r"Expected (?:a|an) (?P<type>.+?)(?:\. Got value: .*)?$")
_GIVEN = re.compile(r"\b(?:Got|Given) value: (?P<value>.*)$")
_FRAME = re.compile(
    r"^(Does not validate|Subtypes:|Errors:|Given value|Parser key|Problem with|Subclass types"
    r"|Not a valid subclass|a class path|a dict with)"
)


@contextlib.contextmanager
def parsing(config: Config, options: Callable[[], Iterable[str]]) -> Iterator[None]:
    """Turn the report of a parser, which knows dotted options, into one sentence.

    Raises:
        UserError: If the configuration is wrong.
    """
    try:
        yield
    except UserError:
        raise
    except (argparse.ArgumentError, TypeError, KeyError, ValueError) as error:
        message = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
        raise _explained(message, config, options()) from None  # whose pages it sums up


@contextlib.contextmanager
def construction(config: Config) -> Iterator[None]:
    """Turn the refusal of a constructor into one sentence that names the part.

    Raises:
        UserError: If a constructor refuses its arguments.
    """
    try:
        yield
    except (ValueError, OSError, MisconfigurationException) as error:
        raise _explained_construction(error, config) from error


def _explained(message: str, config: Config, options: Iterable[str]) -> UserError:
    lines = contexts(message)
    for pattern in _FINDINGS:
        for keys, owner, text in lines:
            if match := pattern.search(text):
                return _sentence(match.groupdict(), keys, owner, config, list(options))
    keys = max((keys for keys, _, _ in lines), key=len, default=())
    about = [(owner, text) for at_keys, owner, text in lines if at_keys == keys]
    owner = about[0][0] if about else None
    value = next((m["value"] for _, text in about if (m := _GIVEN.search(text))), None)
    path = parsed_path(config, keys, owner, value=value)
    types = [m["type"] for _, text in about if (m := _EXPECTED.search(text))]
    if types:
        names = [re.sub(r"<class '(?:[\w.]+\.)?(\w+)'>", r"\1", name) for name in types]
        expected = " or ".join(dict.fromkeys("null" if n == "NoneType" else n for n in names))
        return UserError(f"{_where(config, path)}expected {expected}, got {_value(config, path)}")
    leaves = [text for _, _, text in lines if text and not _FRAME.match(text)]
    reason = leaves[0] if leaves else " ".join(message.split())
    has_value = path and at(config.values, path) is not None
    note = f" (value {_value(config, path)})" if has_value else ""
    return UserError(f"{_where(config, path)}{reason}{note}")


def _explained_construction(error: BaseException, config: Config) -> UserError:
    """Name the part whose constructor refused its arguments: by the traceback of its error."""
    nodes = [*_class_nodes(config.values), (("trainer",), "lightning.pytorch.Trainer")]
    for cause in reversed(_chain(error)):  # the parser wraps what the constructor said
        reason = " ".join(str(cause).split()) or type(cause).__name__
        # from the inside: the part that refused, not the one that it was built for
        for instance in reversed(_constructed(cause.__traceback__)):
            kind = type(instance)
            paths = [p for p, name in nodes if import_name(name) is kind or name == kind.__name__]
            if paths:
                path, inner = max(
                    ((p, p if p == ("trainer",) else (*p, "init_args")) for p in paths),
                    key=lambda one: _num_values_in(reason, at(config.values, one[1])),
                )
                explained = _of_part(config, path, inner, kind.__name__, reason)
                if isinstance(cause, NotApplicable):
                    return NotApplicable(*explained.args)
                return explained
    return UserError(" ".join(str(error).split()) or type(error).__name__)


def _num_values_in(reason: str, arguments: object) -> int:
    """Return how many values of arguments a reason names, which tells parts of a class apart."""
    return sum(repr(value) in reason for _, value in leaves(arguments or {}))


def _of_part(config: Config, path: Key, inner: Key, name: str, reason: str) -> UserError:
    """Point at the argument that the reason mentions, or at the part."""
    for argument in at(config.values, inner) or {}:
        if re.search(rf"\b{re.escape(argument)}\b", reason):
            key = (*inner, argument)
            value = _value(config, key)
            note = "" if value in reason else f" (value {value})"
            return UserError(f"{_where(config, key)}{name}: {reason}{note}")
    return UserError(f"{_where(config, path)}{name}: {reason}")


def _chain(error: BaseException | None) -> list[BaseException]:
    """Return an error and what it was raised from, the last one first raised."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def _sentence(
    finding: dict[str, str | None],
    keys: tuple[str, ...],
    owner: str | None,
    config: Config,
    options: list[str],
) -> UserError:
    several, option = finding.get("several"), finding.get("option")
    path = parsed_path(config, keys, several or finding.get("short") or owner, option)
    if several:
        where = _where(config, path)
        return UserError(
            f"{where}'{several}' could be any of {finding['all']}: write the full path"
        )
    if owner == "":
        node = at(config.values, path)
        owner = str(node.get("class_path")) if isinstance(node, dict) else str(node)
    if option and path:
        key = (*path, "init_args", *option.split("."))
        takes = parameters(owner) if owner else []
        where, value = f"{_where(config, key)}{owner}", _value(config, key)
        if option in takes:  # a factory's
            return UserError(
                f"{where} is given its '{option}' by the part that makes it, not by the "
                f"configuration (value {value})"
            )
        near = did_you_mean(option, takes)
        return UserError(f"{where} has no parameter '{option}' (value {value}){near}")
    if unknown := finding.get("unknown") or option:
        unknown = ".".join(filter(None, (finding.get("group"), unknown)))
        key = tuple(unknown.split("."))
        near = did_you_mean(unknown, [*options, *(o.partition(".")[0] for o in options)])
        return UserError(f"{_where(config, key)}unknown key (value {_value(config, key)}){near}")
    if required := finding.get("required"):
        names = [re.sub(r"^(fit|validate|test|predict)\.", "", n) for n in required.split(", ")]
        of = f"{owner} needs" if owner else "missing"
        return UserError(f"{_where(config, path)}{of} {', '.join(names)}")
    is_node = isinstance(at(config.values, path), dict)
    where = _where(config, (*path, "class_path") if is_node else path)
    if finding.get("module") or finding.get("attribute") or finding.get("short"):
        absent = finding.get("module")
        name = finding.get("short") or owner or absent or ""
        if absent and not f"{name}.".startswith(f"{absent}."):
            return UserError(f"{where}'{name}' cannot be imported: it needs module '{absent}'")
        return UserError(f"{where}no such class '{name}'{_near_class(name, config)}")
    if wrong := finding.get("path"):
        return UserError(f"{where}'{wrong}' is no {finding.get('base')}")
    if kind := finding.get("kind"):
        value = _value(config, path)
        return UserError(f"{_where(config, path)}must be the class_path of a {kind}, got {value}")
    argument = str(finding.get("arguments")).split(" ")[0]
    near = did_you_mean(argument.partition("=")[0], [f"--{option}" for option in options])
    return UserError(f"command line: unknown argument '{argument}'{near}")


def _where(config: Config, path: Key) -> str:
    if not path:
        return ""
    source = config.source(path)
    return f"{source}: {'.'.join(path)}: " if source else f"{'.'.join(path)}: "


def _value(config: Config, path: Key) -> str:
    text = repr(at(config.values, path))
    return text if len(text) <= 80 else text[:77] + "..."


def parameters(class_path: str) -> list[str]:
    """Return the names of a class's parameters, those that it passes to its bases included."""
    return list(_parameters(import_name(class_path)))


@cache  # reading a class's source for them takes 20 ms
def _parameters(target: Any) -> tuple[str, ...]:  # noqa: ANN401
    if not isinstance(target, type):
        return tuple(inspect.signature(target).parameters) if callable(target) else ()
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(target, "part", fail_untyped=False)
    part = parser.get_defaults().get("part")
    return () if part is None else tuple(vars(part))


def _near_class(name: str, config: Config) -> str:
    """Suggest the class that the user may have meant: by its last name, then by its whole path."""
    by_name: dict[str, list[str]] = {}
    for path in [*_known_classes(name, config), *_lightning_classes()]:
        by_name.setdefault(path.rpartition(".")[2], []).append(path)

    def nearest(last: str) -> str:
        paths = by_name[last]
        return difflib.get_close_matches(name, paths, 1, cutoff=0.0)[0] if "." in name else paths[0]

    return did_you_mean(name.rpartition(".")[2], by_name, nearest)


def _known_classes(near: str, config: Config) -> Iterator[str]:
    """Yield the dotted names of loaded classes that the user may have meant."""
    named = {path.partition(".")[0] for _, path in _class_nodes(config.values) if "." in path}
    roots = {"pretzel", "datamodules", "callbacks", near.partition(".")[0], *named} - {"torch"}
    module = near.rpartition(".")[0]
    for name, loaded in list(sys.modules.items()):
        if name.partition(".")[0] not in roots or loaded is None:
            continue
        for attribute, value in list(vars(loaded).items()):
            if isinstance(value, type) and (value.__module__ == name or name == module):
                yield f"{name}.{attribute}"


def _lightning_classes() -> Iterator[str]:
    for name in ("torch.optim", "lightning.pytorch.callbacks", "lightning.pytorch.loggers"):
        for attribute, value in vars(sys.modules.get(name, sys)).items():
            if isinstance(value, type):
                yield f"{name}.{attribute}"


def _constructed(raised: TracebackType | None) -> list[object]:
    """Return the objects under construction when an error was raised, the outermost first."""
    return [
        frame.f_locals["self"]
        for frame, _ in traceback.walk_tb(raised)
        if frame.f_code.co_name == "__init__" and "self" in frame.f_locals
    ]


def _class_nodes(node: object) -> Iterator[tuple[Key, str]]:
    """Yield the path and the class of every class node."""
    for path, value in leaves(node):
        if path[-1:] == ("class_path",) and isinstance(value, str):
            yield path[:-1], value
