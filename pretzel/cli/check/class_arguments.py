"""Parses the arguments of a class, as the command line parses those in YAML."""

import inspect
import typing
from argparse import Action
from collections.abc import Mapping
from dataclasses import dataclass

from jsonargparse import Namespace

from pretzel.errors import UserError, did_you_mean
from pretzel.runs.config import explain
from pretzel.runs.config.overlay import Config
from pretzel.runs.config.typed_parser import TypedParser
from pretzel.testing.discovery import one_line, raised_at

_EXAMPLES = {int: "8", float: "0.5", bool: "true", str: "text"}


@dataclass(frozen=True, kw_only=True)
class ConfiguredPart:
    """A class with its own arguments parsed; a parent's are given to build it.

    Attributes:
        part: The class.
        accepts: Names of the parameters of its constructor.
        parser: Parser of the parameters that are not a parent's.
        parsed: Their values.
        chosen: Default classes for arguments that neither the user nor the constructor gives.
    """

    part: type
    accepts: frozenset[str]
    parser: TypedParser
    parsed: Namespace
    chosen: dict[str, str]

    def __call__(self, **arguments: object) -> object:
        """Build the part, and anew every part that it is made of.

        Args:
            arguments: A parent's arguments; those that the constructor does not have are left out.

        Raises:
            UserError: If the constructor raises anything, from that exception, in one sentence.
        """
        of_parent = {name: value for name, value in arguments.items() if name in self.accepts}
        try:
            return self.part(**of_parent, **vars(self.parser.instantiate(self.parsed)))
        except (Exception, SystemExit) as error:
            reason = one_line(error)
            if not isinstance(error, UserError):
                reason = f"{type(error).__name__}: {reason}{raised_at(error)}"
            raise UserError(f"{self.part.__name__} cannot be built: {reason}") from error


def configure(
    part: type, config: Config, parent_parameters: frozenset[str], defaults: Mapping[str, str]
) -> ConfiguredPart:
    """Parse the arguments of a class, those apart that a parent gives.

    ``defaults`` are classes for parameters that are required and not in ``config``.

    Raises:
        UserError: If an argument is unknown, missing, the parent's or of the wrong type.
    """
    name = f"{part.__module__}.{part.__qualname__}"
    try:
        accepts = frozenset(explain.parameters(name))
    except ValueError as error:
        raise UserError(f"the constructor of {name} cannot be read: {one_line(error)}") from error
    for key in config.values:
        if key in parent_parameters:
            raise UserError(
                f"{config.source((key,))}: {key} is not for YAML to give: the parent of {name} "
                "does, here this check"
            )
    parser = TypedParser(exit_on_error=False)
    options = parser.add_class_arguments(
        part, None, fail_untyped=False, skip=set(parent_parameters & accepts), instantiate=False
    )
    for key in config.values:
        if key not in options:
            near = did_you_mean(key, options)
            raise UserError(
                f"{config.source((key,))}: {name} has no parameter '{key}' "
                f"(value {config.values[key]!r}){near}"
            )
    required = {a.dest: a for a in parser._actions if a.required and a.dest not in config.values}
    chosen = {key: defaults[key] for key in required if key in defaults}
    if missing := {key: action for key, action in required.items() if key not in chosen}:
        examples = " ".join(f"--init-args.{key} {_example(missing[key])}" for key in missing)
        raise UserError(f"{name} needs {', '.join(missing)}: for example {examples}")
    with explain.parsing(config, lambda: options):
        parsed = parser.parse_object({**chosen, **config.values})
    return ConfiguredPart(part=part, accepts=accepts, parser=parser, parsed=parsed, chosen=chosen)


def _example(action: Action) -> str:
    """Return a value that a parameter could take: a number, a class, or its name in capitals."""
    annotation = getattr(action, "_typehint", None)
    if annotation in _EXAMPLES:
        return _EXAMPLES[annotation]
    if getattr(annotation, "_is_protocol", False):  # a factory: an example of what it makes
        annotation = typing.get_type_hints(vars(annotation)["__call__"]).get("return")
    if concrete := _a_concrete(annotation):
        return f"{concrete.__module__}.{concrete.__qualname__}"
    return action.dest.upper()


def _a_concrete(base: object) -> type | None:
    """Return the first loaded class under an abstract one that can be instantiated."""
    base = typing.get_origin(base) or base
    waiting = [base] if isinstance(base, type) and base.__module__ != "builtins" else []
    for candidate in waiting:  # which grows meanwhile
        if not inspect.isabstract(candidate):
            return candidate
        waiting.extend(candidate.__subclasses__())
    return None
