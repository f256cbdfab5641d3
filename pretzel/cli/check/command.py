"""``pretzel check pkg.mod.Class``: tests any part by the laws of its kind, and prints each."""

import inspect
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pretzel.cli.yaml_value import yaml_value
from pretzel.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from pretzel.cli.check.trials import LawTrial
    from pretzel.runs.config.overlay import Config
    from pretzel.testing.suite import Outcome

_HELP = """\
usage: pretzel check CLASS [--init-args YAML | --init-args.NAME VALUE ...]

Hold a part to the laws of its contract: blocks of a flow and all that they are made of, samplers,
guidance, denoisers, interleavings, skip connections, adapters, vision inputs, latent spaces, VLM
streams, conditions, splits, schedules, recipes and sources of data, metrics of generated images.
What has parameters is tried in float64, at initialisation and with all of them perturbed, in
training and in evaluation mode; a law that says something in some of these states alone, in those.

  CLASS                    dotted path; the current folder is importable
  --init-args YAML         its arguments, as under init_args in a YAML file
  --init-args.NAME VALUE   one of them; parts by class_path, deeper ones by dots

What a parent gives in YAML (channels, grid, ...) is given by the check. Without arguments,
Pretzel's own parts stand trial in several configurations.

examples:
  pretzel check pretzel.flow.AFBlock
  pretzel check my_package.MyBlock --init-args.width 8 --init-args.transform pretzel.flow.AffineExp
  pretzel check my_package.MyTransform --init-args '{knots: 4, bound: 3.0}'

exit code: 0 all laws hold, 1 a law is broken, 2 a mistake in the command or in the class
"""


def main(args: list[str]) -> int:
    """Run ``pretzel check``; 0 if all laws hold, 1 if one is broken."""
    if not args or any(argument in ("-h", "--help") for argument in args):
        print(_HELP)
        return 0
    name, options = _split(args)
    part = find_class(name)
    return _judge(part, _trials(part, options))


def find_class(name: str) -> type:
    """Import a concrete class by its dotted path.

    Raises:
        UserError: If there is none, it is not a class, or it is abstract.
    """
    from pretzel.testing.discovery import import_module

    parts = name.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise UserError(
            f"'{name}' is not the dotted path of a class, such as "
            f"my_package.blocks.MyBlock{_by_last_name(name)}"
        )
    value: object = import_module(parts[0])
    for number, part in enumerate(parts[1:], start=1):
        value = _attribute(value, ".".join(parts[:number]), part)
    if not isinstance(value, type):
        what = "a module" if inspect.ismodule(value) else f"a {type(value).__name__}"
        classes = list(_classes(value)) if inspect.ismodule(value) else []
        several = f"; it has {', '.join(sorted(classes)[:5])}" if classes else ""
        raise UserError(f"'{name}' is not a class but {what}{several}")
    if inspect.isabstract(value):
        missing = ", ".join(sorted(getattr(value, "__abstractmethods__", ())))
        raise UserError(f"'{name}' is abstract ({missing}): check a subclass that can be built")
    return value


def _attribute(owner: object, path: str, name: str) -> object:
    """Return an attribute of a module or a class, or a submodule of a package."""
    from pretzel.testing.discovery import import_module

    # A class goes before a submodule of the same name, a submodule before anything else.
    is_class = isinstance(getattr(owner, name, None), type)
    if hasattr(owner, "__path__") and not is_class:
        try:
            return import_module(f"{path}.{name}")
        except UserError as error:
            cause = error.__cause__
            if not isinstance(cause, ModuleNotFoundError) or cause.name != f"{path}.{name}":
                raise
    if hasattr(owner, name):
        return getattr(owner, name)
    if not inspect.ismodule(owner):
        raise UserError(f"'{path}' has no attribute '{name}'")
    near = did_you_mean(name, _classes(owner), lambda near: f"{path}.{near}")
    raise UserError(f"module '{path}' has no class '{name}'{near}")


def _classes(module: object) -> Iterator[str]:
    """Yield the names of the classes of a module that have laws, and of all if none has."""
    from pretzel.testing.suite import has_laws

    named = {name: value for name, value in vars(module).items() if isinstance(value, type)}
    lawful = [name for name, value in named.items() if has_laws(value)]
    yield from lawful or [name for name in named if not name.startswith("_")]


def _by_last_name(name: str) -> str:
    from pretzel.testing.builtin_parts import BUILTIN_PARTS

    paths = {part.__name__: f"{part.__module__}.{part.__qualname__}" for part in BUILTIN_PARTS}
    last = name.replace("/", ".").removesuffix(".py").rpartition(".")[2]
    return did_you_mean(last, paths, paths.__getitem__)


def _split(args: list[str]) -> tuple[str, list[tuple[str, Any]]]:
    """Return the class and the options ``(name, value)``; the name is empty for a mapping."""
    names: list[str] = []
    options: list[tuple[str, Any]] = []
    tokens = iter(args)
    for token in tokens:
        if not token.startswith("-"):
            names.append(token)
            continue
        key, equals, text = token.partition("=")
        option, _, argument = key.replace("--init_args", "--init-args", 1).partition(".")
        if option != "--init-args" or key.endswith("."):
            raise UserError(
                f"unknown option '{key}'; arguments of the class are given by --init-args.NAME"
            )
        options.append((argument, yaml_value(key, text if equals else next(tokens, None))))
    if len(names) != 1:
        got = ", ".join(names) or "none"
        raise UserError(f"check takes one class, got {got}; see `pretzel check --help`")
    return names[0], options


def _config(options: list[tuple[str, Any]]) -> "Config":
    """Fold options over one another, as files and arguments of ``pretzel fit`` are."""
    from pretzel.runs.config.overlay import Config, override
    from pretzel.runs.config.yaml_lines import Source

    config = Config(values={})
    source = Source(name="--init-args")
    for name, value in options:
        if name:
            config = override(config, name, value, source)
            continue
        if not isinstance(value, dict):
            raise UserError(f"{source} must be a mapping of names to values, got {value!r}")
        for key, inner in value.items():
            config = override(config, str(key), inner, source)
    return config


def _trials(part: type, options: list[tuple[str, Any]]) -> "list[LawTrial]":
    """Return the cases of one of Pretzel's own parts, or trials with the user's arguments."""
    from pretzel.cli.check.class_arguments import configure
    from pretzel.cli.check.trials import LawTrial, kind_of
    from pretzel.testing.builtin_parts import shipped_cases
    from pretzel.testing.law_case import describe

    kind = kind_of(part)
    if not options and (shipped := shipped_cases(part)):
        return [LawTrial(describe(factory), factory) for factory in shipped]
    make = configure(part, _config(options), kind.parent_parameters, kind.defaults)
    for name, value in make.chosen.items():
        _say(f"{name}: {value}, as --init-args.{name} is not given")
    return kind.trials(make)


def _judge(part: type, trials: "list[LawTrial]") -> int:
    """Try all laws on all trials, and print each as it is done."""
    from pretzel.testing.suite import cases_of, try_law

    began = time.monotonic()
    outcomes: list[Outcome] = []
    for number, trial in enumerate(trials, start=1):
        _say(f"{part.__name__}, trial {number} of {len(trials)}: {trial.label}".rstrip(": "))
        if trial.refused:
            _say(f"  skipped: {trial.refused}")
            continue
        cases = cases_of(trial.factory)
        width = max(len(law.name) for law, _ in cases)
        for law, case in cases:
            outcomes.append(try_law(law, case))
            _say(_line(outcomes[-1], width))
    several = "trial" if len(trials) == 1 else "trials"
    seconds = time.monotonic() - began
    spent = f"{len(outcomes)} checks in {len(trials)} {several}, {seconds:.0f} s"
    failed = [outcome for outcome in outcomes if not outcome.passed]
    if not failed:
        names = {outcome.law.name for outcome in outcomes}
        _say(f"{part.__name__} obeys all {len(names)} laws ({spent})")
        return 0
    broken = ", ".join(dict.fromkeys(outcome.law.name for outcome in failed))
    _say(f"{part.__name__} breaks {broken}: {len(failed)} failures ({spent})")
    return 1


def _line(outcome: "Outcome", width: int) -> str:
    detail = " ".join(outcome.detail.split())
    detail = detail if len(detail) <= 400 else f"{detail[:400]}..."
    verdict = "pass" if outcome.passed else "FAIL"
    line = f"  {verdict}  {outcome.law.name:{width}}  {outcome.state!s:15}  {detail}"
    return line if outcome.passed else f"{line}\n        {' '.join(outcome.law.meaning.split())}"


def _say(line: str) -> None:
    print(line, flush=True)
