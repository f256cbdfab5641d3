"""What stands in an argument is of the argument's type, whatever a configuration names there."""

import inspect
import json
import pkgutil
import re
from argparse import ArgumentError
from collections.abc import Callable
from enum import Enum
from functools import partial
from importlib import import_module
from pathlib import Path
from types import BuiltinFunctionType, FunctionType
from typing import Any, Protocol, get_type_hints

import lightning.pytorch as lightning
import pytest
import torch
from lightning.pytorch.strategies import Strategy

from pretzel.flow import AffineExp, Transform
from pretzel.flow.block import BlockFactory
from pretzel.flow.mlp import MLPFactory
from pretzel.flow.norms import Norm, NormFactory, RMSNorm
from pretzel.runs.cli import import_parts
from pretzel.runs.config.typed_parser import TypedParser

Strategies = str | Strategy
PACKAGES = ("pretzel", "datamodules", "callbacks")
_COMMANDS = ("__main__", "cli", "ablation", "runs", "testing")
NO_PARTS = ("datamodules.tools", *(f"pretzel.{name}" for name in _COMMANDS))
COMMAND = "touch executed"
HOSTILE = [
    {"class_path": "os.system", "init_args": {"command": COMMAND}},
    {"class_path": "builtins.eval", "init_args": {"source": "open('executed', 'w')"}},
    {"class_path": "builtins.exec", "init_args": {"source": "open('executed', 'w')"}},
    {"class_path": "subprocess.Popen", "init_args": {"args": COMMAND, "shell": True}},
    {"class_path": "functools.partial", "init_args": {"func": "os.system"}},
    {"class_path": "torch.Generator"},
]
SYSTEM = HOSTILE[0]
NAMES = [node["class_path"] for node in HOSTILE]
VALUES = [*HOSTILE, *NAMES, json.dumps(SYSTEM), [SYSTEM], {"key": SYSTEM}, {"key": [SYSTEM]}]


def hints_of(part: type) -> dict[str, Any]:
    """Return the types of the arguments of a class; Any for those without."""
    if part.__init__ is object.__init__ or issubclass(part, Enum | BaseException):
        return {}
    try:
        hints = get_type_hints(part.__init__)
    except NameError:  # of names that only a type checker imports
        parser = TypedParser(exit_on_error=False)
        parser.add_class_arguments(part, fail_untyped=False)
        return {a.dest: a._typehint for a in parser._actions if hasattr(a, "_typehint")}
    return {name: hints.get(name, Any) for name in inspect.signature(part).parameters}


def shipped() -> list[type]:
    import_parts()
    modules = [
        import_module(module.name)
        for package in PACKAGES
        for module in pkgutil.walk_packages(import_module(package).__path__, f"{package}.")
        if not module.name.startswith(NO_PARTS)
    ]
    return [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__
    ]


def lightnings() -> list[type]:
    rooms = (lightning.callbacks, lightning.loggers, lightning.strategies, lightning.profilers)
    others = (lightning.plugins, torch.optim, torch.optim.lr_scheduler)
    classes = [
        v
        for room in (*rooms, *others)
        for v in vars(room).values()
        if isinstance(v, type)
        and v.__module__.startswith(("lightning", "torch"))
        and not issubclass(v, dict)
    ]
    return [lightning.Trainer, *classes]


def parser_of(hint: Any) -> TypedParser:
    parser = TypedParser(exit_on_error=False)
    parser.add_argument("--slot", type=hint)
    return parser


@pytest.mark.parametrize("classes", [shipped, lightnings])
def test_nothing_but_parts_is_taken_in_any_argument_of_any_class(classes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    taken = []
    arguments = {hint: (part, name) for part in classes() for name, hint in hints_of(part).items()}
    for hint, where in arguments.items():
        try:
            parser = parser_of(hint)
        except ValueError:
            continue  # no type that a configuration can give
        for value in VALUES:
            try:
                built = parser.instantiate(parser.parse_object({"slot": value})).slot
            except (ArgumentError, TypeError):  # the latter of a list for a dataclass
                continue
            if isinstance(value, str) and built in (value, Path(value), [value]):
                continue  # a text is a text
            if isinstance(built, bytes):
                continue  # or read as base64
            taken.append((where, value, built))
    assert not taken
    assert not list(tmp_path.iterdir())
    assert arguments.keys() > {BlockFactory, Transform} or arguments.keys() > {Any, Strategies}


def narrow(width: int) -> Norm:
    return RMSNorm(width)


def flat(scale: float) -> AffineExp:
    return AffineExp()


def untyped(scale: float):
    return AffineExp()


def lazily(scale: float) -> "AffineExp":
    return AffineExp()


class Curve(Protocol):
    def __call__(self, x: float) -> float: ...


def double(x: float) -> float:
    return 2 * x


class Activation:
    def __init__(self, slope: float) -> None:
        self.slope = slope

    def __call__(self, x: float) -> float:
        return self.slope * x


@pytest.mark.parametrize(
    ("hint", "value", "built"),
    [
        (Transform, "AffineExp", AffineExp),
        (Transform | None, {"class_path": "pretzel.flow.AffineExp"}, AffineExp),
        (Transform, {"class_path": f"{__name__}.flat", "init_args": {"scale": 1.0}}, AffineExp),
        (Transform, {"class_path": f"{__name__}.lazily", "init_args": {"scale": 1.0}}, AffineExp),
        (NormFactory, f"{__name__}.narrow", FunctionType),
        (NormFactory, {"class_path": "LayerNorm"}, partial),  # torch has one too
        (MLPFactory, {"class_path": "MLP"}, partial),
        (list[Transform], [{"class_path": "AffineExp"}], list),
        (Callable, {"class_path": f"{__name__}.Activation", "init_args": {"slope": 2}}, Activation),
        (Callable[..., Any], "torch.nn.functional.gelu", BuiltinFunctionType),
        (Curve, f"{__name__}.double", FunctionType),
        (Curve, {"class_path": f"{__name__}.Activation", "init_args": {"slope": 2}}, Activation),
        (Callable[[int], bool], f"{__name__}.untyped", FunctionType),
        (dict[str, Any], {"model_type": "llama", "layers": [1]}, dict),
    ],
)
def test_what_an_argument_asks_for_is_built(hint, value, built):
    parser = parser_of(hint)
    assert isinstance(parser.instantiate(parser.parse_object({"slot": value})).slot, built)


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (
            Transform,
            {"class_path": f"{__name__}.untyped", "init_args": {"scale": 1.0}},
            "Transform",
        ),
        (NormFactory, {"class_path": "torch.nn.LayerNorm"}, "Norm"),
        (Any, {"class_path": "pretzel.flow.AffineExp"}, "the type of this argument, Any, is no"),
        (object, [{"class_path": "pretzel.flow.AffineExp"}], "the type of this argument, object"),
        (dict[str, Any], {"a": {"class_path": "pretzel.flow.AffineExp"}}, "is no class"),
        (Callable, "os.abort", "neither of them Python's own"),
    ],
)
def test_what_an_argument_does_not_ask_for_is_refused(hint, value, expected):
    with pytest.raises(ArgumentError, match=f"does not correspond to a subclass of .*{expected}"):
        parser_of(hint).parse_object({"slot": value})


def test_no_other_parser_builds_what_a_configuration_names():
    root = Path(__file__).parents[2]
    texts = {
        path: path.read_text() for package in PACKAGES for path in (root / package).rglob("*.py")
    }
    others = {
        path.stem for path, text in texts.items() if re.search(r"\bArgumentParser\(exit", text)
    }
    # the first two instantiate nothing; the last one what we have written ourselves
    assert others == {"explain", "slots", "imported_flow"}
