"""The JSON Schema of a grid file, for editors, made of the types that its reader goes by."""

import dataclasses
import inspect
import re
from types import NoneType
from typing import Any, Literal, cast, get_args, get_origin

from pretzel.ablation.gridfile.definition import GridFile
from pretzel.ablation.gridfile.typed import Rule, fields, members, split, told

_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null"}


def grid_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a grid file."""
    definitions: dict[str, Any] = {}
    reference = _schema(GridFile, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pretzel grid",
        **reference,
        "$defs": definitions,
    }


def _schema(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401
    inner, rule = split(kind)
    origin = get_origin(inner) or inner
    found: dict[str, Any]
    if members(inner):
        found = {"anyOf": [_schema(member, definitions) for member in members(inner)]}
    elif origin is Literal:
        found = {"enum": list(get_args(inner))}
    elif dataclasses.is_dataclass(inner):
        name = cast(type, inner).__name__
        if name not in definitions:
            definitions[name] = {}
            definitions[name] |= _object(cast(type, inner), definitions)
        found = {"$ref": f"#/$defs/{name}"}
    elif origin is dict:
        names, of = get_args(inner)
        found = {"type": "object", "additionalProperties": _schema(of, definitions)}
        if pattern := split(names)[1].pattern:
            found["propertyNames"] = {"pattern": pattern}
    elif origin is list:
        found = {"type": "array", "items": _schema(get_args(inner)[0], definitions)}
    else:
        found = {} if inner is Any else {"type": _TYPES[inner]}
    return found | _rules(rule, kind, is_mapping=origin is dict)


def _rules(rule: Rule, kind: Any, *, is_mapping: bool) -> dict[str, Any]:  # noqa: ANN401
    given = {
        "description": f"Must be {told(kind)}." if rule.told else None,
        "pattern": rule.pattern,
        "minimum": rule.minimum,
        "exclusiveMinimum": rule.above,
        "uniqueItems": rule.different or None,
        "minProperties" if is_mapping else "minItems": rule.at_least or None,
    }
    return {key: value for key, value in given.items() if value is not None}


def _object(kind: type, definitions: dict[str, Any]) -> dict[str, Any]:
    kinds, others = fields(kind)
    about = _about(kind)
    properties: dict[str, Any] = {}
    required = []
    for field in dataclasses.fields(kind):
        if field.name == others:
            continue
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        found = _schema(kinds[field.name], definitions)
        rule = found.pop("description", "")
        found["description"] = " ".join(text for text in (about[field.name], rule) if text)
        if default is dataclasses.MISSING:
            required.append(field.name)
        elif default is not None:
            found["default"] = default
        properties[field.name] = found
    rest = _schema(kinds[others], definitions) if others is not None else {}
    return {
        "type": "object",
        "description": about[""],
        "properties": properties,
        "required": required,
        "additionalProperties": rest.get("additionalProperties", False),
        **({"propertyNames": rest["propertyNames"]} if "propertyNames" in rest else {}),
    }


def _about(kind: type) -> dict[str, str]:
    """Return what a docstring says of each attribute; of the class itself under an empty name."""
    text, _, attributes = (inspect.getdoc(kind) or "").partition("\nAttributes:\n")
    found = {"": " ".join(text.split())}
    for entry in re.split(r"\n(?= {4}\w)", attributes):
        name, _, said = entry.strip().partition(":")
        found.setdefault(name, " ".join(said.replace("``", "`").split()))
    return found
