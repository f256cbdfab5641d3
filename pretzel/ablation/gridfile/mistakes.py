"""Mistakes of a grid file in sentences, made of pydantic's errors and the schema's descriptions."""

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from pretzel.ablation.gridfile.run_names import shortened
from pretzel.ablation.gridfile.schema import grid_schema
from pretzel.errors import did_you_mean
from pretzel.runs.config.overlay import at
from pretzel.runs.config.yaml_lines import Key

Node = dict[str, Any]

_TYPES = {
    "array": "a list",
    "integer": "an integer",
    "null": "null",
    "number": "a number",
    "object": "a mapping",
    "string": "a text",
}


def mistakes(error: ValidationError, values: dict[str, Any]) -> Iterator[tuple[Key, str]]:
    """Yield the key of each wrong value, and what it must be, after a failed validation."""
    schema = grid_schema()
    for details in error.errors(include_url=False):
        kind, value = details["type"], details["input"]
        path = tuple(map(str, details["loc"]))
        if is_key := path[-1] == "[key]":
            path = (*path[:-2], str(value))
        parent = _follow(path[:-1], schema)[1]
        if kind == "invalid_key" or (is_key and kind == "string_type"):
            yield path, f"a key must be a text, got {value!r}: write it in quotes"
        elif is_key:
            yield path, f"must be {_must_be(parent['propertyNames'])}, got {shortened(repr(value))}"
        elif kind == "extra_forbidden":
            yield path, f"unknown key{did_you_mean(path[-1], parent['properties'])}"
        elif kind == "missing" and _follow(path, schema)[0] == path:
            yield path, f"is missing; must be {_must_be(_follow(path, schema)[1])}"
        else:
            key, node = _follow(path, schema)
            value = value if key == path else at(values, key)
            near = did_you_mean(value, node.get("enum", ())) if isinstance(value, str) else ""
            yield key, f"must be {_must_be(node)}, got {shortened(repr(value))}{near}"


def _follow(path: Key, schema: Node) -> tuple[Key, Node]:
    """Follow an error's path through the schema to what a user would call wrong.

    A list with a description counts as a whole, and so does a value of several types, whose
    errors pydantic tells for each type. Returned are the part of the path that leads there, and
    the schema of what is there.
    """
    node = _resolved(schema, schema)
    for length, part in enumerate(path):
        inner = _resolved(node, schema)
        if "anyOf" in inner or ("items" in inner and "Must be " in _description(node)):
            return path[:length], node
        others = [*inner.get("patternProperties", {}).values(), inner.get("additionalProperties")]
        named = inner.get("properties", {}).get(part) or inner.get("items")
        node = named or next(filter(None, others), {})
    return path, _resolved(node, schema)


def _resolved(node: Node, schema: Node) -> Node:
    """Return a schema without references, and without null beside a single other type."""
    types = [one for one in node.get("anyOf", ()) if one.get("type") != "null"]
    if len(types) == 1:
        node = {**types[0], **{key: value for key, value in node.items() if key != "anyOf"}}
    reference = node.get("$ref", "").rpartition("/")[2]
    return {**schema["$defs"][reference], **node} if reference else node


def _must_be(node: Node) -> str:
    """Return what a value must be, as it stands after "must be"."""
    if must_be := _description(node).partition("Must be ")[2]:
        return must_be.removesuffix(".")
    if "enum" in node:
        *most, last = node["enum"]
        return f"{', '.join(most)} or {last}"
    return " or ".join(_TYPES[one["type"]] for one in node.get("anyOf", [node]))


def _description(node: Node) -> str:
    return " ".join(node.get("description", "").split())
