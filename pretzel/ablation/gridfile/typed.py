"""Values of a YAML file read by their types: every mistake is told at its key, with its line.

The types are those of :mod:`pretzel.ablation.gridfile.definition`: dataclasses, ``dict``,
``list``, ``Literal``, unions and ``Annotated[..., Rule(...)]``.
:mod:`pretzel.ablation.gridfile.schema` makes a JSON schema of the same types, so that the reader
and the schema cannot differ.
"""

import dataclasses
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin
from typing import get_type_hints as hints_of

from pretzel.errors import did_you_mean
from pretzel.runs.config.yaml_lines import Key, Source

T = TypeVar("T")
_WRONG: Any = object()


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a type alone cannot say about a value.

    Attributes:
        told: What the value must be, as it stands after "must be". A list or a union that has it
            is one thing to the user: what is wrong inside is told of the whole.
        pattern: Regular expression of a string.
        minimum: Least number.
        above: Number that a number must exceed.
        different: Whether the items of a list must differ.
        at_least: Least number of items or keys.
        others: Whether this field of a dataclass takes all keys that are no fields.
    """

    told: str = ""
    pattern: str | None = None
    minimum: float | None = None
    above: float | None = None
    different: bool = False
    at_least: int = 0
    others: bool = False


def split(kind: Any) -> tuple[Any, Rule]:  # noqa: ANN401
    """Return a type without its annotation, and its rule."""
    if get_origin(kind) is Annotated:
        inner, *found = get_args(kind)
        return inner, next((rule for rule in found if isinstance(rule, Rule)), Rule())
    return kind, Rule()


@cache
def fields(kind: type) -> tuple[dict[str, Any], str | None]:
    """Return the types of a dataclass's fields, and which takes all other keys."""
    kinds = hints_of(kind, include_extras=True)
    others = next((name for name, inner in kinds.items() if split(inner)[1].others), None)
    return kinds, others


def members(kind: Any) -> tuple[Any, ...]:  # noqa: ANN401
    """Return the members of a union; of any other type none."""
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else ()


def told(kind: Any) -> str:  # noqa: ANN401
    """Return what a value of a type is called, as it stands after "must be"."""
    inner, rule = split(kind)
    if rule.told:
        return rule.told
    if get_origin(inner) is Literal:
        *most, last = map(str, get_args(inner))
        return f"{', '.join(most)} or {last}" if most else last
    if members(inner):
        return " or ".join(dict.fromkeys(map(told, members(inner))))
    names = {
        int: "an integer", float: "a number", str: "a text", bool: "true or false",
        list: "a list", dict: "a mapping", NoneType: "null",
    }  # fmt: skip
    return names.get(get_origin(inner) or inner, "a mapping")


class TypedReader:
    """Reads values by their types and collects every mistake instead of stopping at the first.

    Args:
        file: The file, for what has no line of its own.
        sources: Where each key is written.
    """

    def __init__(self, file: Path, sources: dict[Key, Source]) -> None:
        self.file, self.sources = file, sources
        self.mistakes: list[str] = []

    def source(self, key: Key) -> Source:
        """Return where a key is written, or the nearest mapping that holds it."""
        for size in range(len(key), 0, -1):
            if key[:size] in self.sources:
                return self.sources[key[:size]]
        return Source(name=str(self.file))

    def wrong(self, key: Key, message: str) -> None:
        """Note a mistake."""
        self.mistakes.append(f"{self.source(key)}: {'.'.join(key)}: {message}")

    def read(self, kind: type[T], value: object) -> T:
        """Return a value of a dataclass; where it is wrong, something empty of the right type.

        Args:
            kind: A dataclass.
            value: What the file holds.
        """
        return cast(T, self._read(kind, value, ()))

    def _read(self, kind: Any, value: Any, at: Key) -> Any:  # noqa: ANN401
        inner, rule = split(kind)
        before = len(self.mistakes)
        found = self._shaped(inner, value, at)
        inside = len(self.mistakes) > before
        if inside and rule.told and ((get_origin(inner) or inner) is list or members(inner)):
            del self.mistakes[before:]
            found = _WRONG
        if found is _WRONG or (not inside and not _obeys(rule, found)):
            near = ""
            if get_origin(inner) is Literal and isinstance(value, str):
                near = did_you_mean(value, map(str, get_args(inner)))
            self.wrong(at, f"must be {told(kind)}, got {value!r}{near}")
            return _empty(kind)
        return found

    def _shaped(self, kind: Any, value: Any, at: Key) -> Any:  # noqa: ANN401
        """Return a value of a type without its rule; _WRONG where it is not of this type."""
        origin = get_origin(kind) or kind
        if members(kind):
            return self._first_that_fits(members(kind), value, at)
        if dataclasses.is_dataclass(kind):
            return self._fields(cast(type, kind), value, at) if isinstance(value, dict) else _WRONG
        if origin is dict and isinstance(value, dict):
            return self._entries(get_args(kind), value, at)
        if origin is list and isinstance(value, list):
            (item,) = get_args(kind)
            return [self._read(item, one, (*at, str(i))) for i, one in enumerate(value)]
        if not _fits(kind, value):
            return _WRONG
        return float(value) if kind is float else value

    def _first_that_fits(self, kinds: tuple[Any, ...], value: object, at: Key) -> Any:  # noqa: ANN401
        before = len(self.mistakes)
        for kind in kinds:
            found = self._read(kind, value, at)
            is_mapped = dataclasses.is_dataclass(split(kind)[0]) and isinstance(value, dict)
            if len(self.mistakes) == before or is_mapped:  # what is wrong inside tells more
                return found
            del self.mistakes[before:]
        return _WRONG

    def _entries(self, kinds: tuple[Any, ...], value: dict[Any, Any], at: Key) -> dict[str, Any]:
        named, of = kinds
        for name in value:
            key = (*at, str(name))
            if not isinstance(name, str):
                self.wrong(key, f"a key must be a text, got {name!r}: write it in quotes")
            elif not _obeys(split(named)[1], name):
                self.wrong(key, f"must be {told(named)}, got {name!r}")
        return {str(name): self._read(of, one, (*at, str(name))) for name, one in value.items()}

    def _fields(self, kind: type, value: dict[Any, Any], at: Key) -> Any:  # noqa: ANN401
        kinds, others = fields(kind)
        given = {str(key): one for key, one in value.items()}
        rest = {key: one for key, one in given.items() if key not in kinds or key == others}
        found: dict[str, Any] = {}
        for one in dataclasses.fields(kind):
            if one.name == others:
                found[one.name] = self._read(kinds[one.name], rest, at)
            elif one.name in given:
                found[one.name] = self._read(kinds[one.name], given[one.name], (*at, one.name))
            elif one.default is one.default_factory is dataclasses.MISSING:
                self.wrong((*at, one.name), f"is missing; must be {told(kinds[one.name])}")
                found[one.name] = _empty(kinds[one.name])
        if others is None:
            for key in rest:
                self.wrong((*at, key), f"unknown key{did_you_mean(key, kinds)}")
        return kind(**found)


def _fits(kind: Any, value: object) -> bool:  # noqa: ANN401
    if kind is Any:
        return True
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is kind


def _obeys(rule: Rule, value: Any) -> bool:  # noqa: ANN401
    if isinstance(value, str):
        return rule.pattern is None or re.search(rule.pattern, value) is not None
    if isinstance(value, int | float):
        least, above = rule.minimum, rule.above
        return (least is None or value >= least) and (above is None or value > above)
    if isinstance(value, list | dict):
        items = list(value)
        differ = not rule.different or all(items.count(one) == 1 for one in items)
        return len(value) >= rule.at_least and differ
    return True


def _empty(kind: Any) -> Any:  # noqa: ANN401
    """Return a value that stands in for a wrong one, so that the rest is checked too."""
    inner, _ = split(kind)
    if get_origin(inner) is Literal:
        return get_args(inner)[0]
    if members(inner):
        return _empty(members(inner)[0])
    if dataclasses.is_dataclass(inner):
        kinds, _ = fields(cast(type, inner))
        return inner(**{name: _empty(of) for name, of in kinds.items()})  # type: ignore[operator]
    return (get_origin(inner) or inner)()
