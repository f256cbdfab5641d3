"""Models of configurations, built without memory to be checked and counted, each once."""

import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule
from torch import nn

from pretzel.ablation.planning.config_resolver import Resolved
from pretzel.ablation.planning.flops import forward_flops, shapes_alone
from pretzel.ablation.planning.plan import Sizes
from pretzel.runs.cli import ParseOnlyCLI
from pretzel.runs.config.class_paths import import_name
from pretzel.runs.config.explain import explain_constructor
from pretzel.runs.config.overlay import Config
from pretzel.runs.meta_device import built_without_memory

_MOST_MADE = 64  # those of the first arms; what is tried in one arm alone is not worth keeping


class PlanningCLI(ParseOnlyCLI):
    """The command line's parser, which notes the classes of what it builds."""

    constructed: set[type]

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[tuple[type, str], bytes] = {}
        self._reuses = False

    def build_shapes(self, subcommand: str, namespace: Namespace) -> LightningModule:
        """Build the model of a parsed configuration under :func:`.flops.shapes_alone`.

        Parts that are given nothing but plain values, a frozen encoder for example, are the same
        in many models: each is made, and its file read, once.

        Raises:
            UserError: If a constructor refuses its arguments.
        """
        self._reuses = True
        try:
            with shapes_alone():
                return self.build_model(subcommand, namespace)
        finally:
            self._reuses = False

    def build_model(self, subcommand: str, namespace: Namespace) -> LightningModule:
        """Build the model of a parsed configuration.

        Raises:
            UserError: If a constructor refuses its arguments.
        """
        self.config, self.subcommand = namespace, subcommand
        self.constructed = set()
        chosen = Namespace(model=namespace[subcommand].model)  # type: ignore[no-untyped-call]
        noted = [(self._note, object, True)]
        try:
            built = self._parser(subcommand).instantiate(chosen, instantiators=noted)
        except (ValueError, OSError, MisconfigurationException) as error:
            raise explain_constructor(error, self.given) from error
        model: LightningModule = built.model
        return model

    def build_data(self, subcommand: str, namespace: Namespace) -> LightningDataModule | None:
        """Build the data module of a parsed configuration.

        Raises:
            ValueError: If a constructor refuses its arguments.
        """
        if namespace[subcommand].get("data") is None:
            return None
        chosen = Namespace(data=namespace[subcommand].data)  # type: ignore[no-untyped-call]
        data: LightningDataModule = self._parser(subcommand).instantiate(chosen).data
        return data

    def _note(self, class_type: type, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        self.constructed.add(class_type)
        is_part = self._reuses and issubclass(class_type, nn.Module)
        if not is_part or not _is_plain([*args, *kwargs.values()]):
            return class_type(*args, **kwargs)
        key = class_type, repr((args, sorted(kwargs.items())))
        if kept := self._made.get(key):  # a copy, since what is around a part may change it
            return pickle.loads(kept)
        part = class_type(*args, **kwargs)
        if key not in self._made and len(self._made) < _MOST_MADE:
            self._made[key] = _pickled(part)
        return part


def _pickled(part: nn.Module) -> bytes:
    """Return a part as bytes, which is copied five times as fast; empty where it cannot be."""
    try:
        return pickle.dumps(part)
    except Exception:  # whatever a user's part holds
        return b""


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


class Builder:
    """Builds each model once.

    Two configurations give the same model also where they differ in a part that is never made: the
    arguments of an optimizer, which a module keeps for later, say nothing about the module.

    Args:
        cli: The command line's parser.

    Attributes:
        builds: Number of models built.
    """

    def __init__(self, cli: PlanningCLI) -> None:
        self.cli = cli
        self.builds = 0
        self._known: dict[frozenset[str], dict[str, _Built]] = {}

    def __call__(self, config: Config, resolved: Resolved, *, count: bool) -> Sizes | None:
        """Return what the model of a configuration costs.

        Args:
            config: Its sources appear in the messages.
            resolved: What it was parsed to.
            count: Whether FLOPs are counted, which takes longer than building.

        Returns:
            The sizes; None if a part cannot be built without memory.

        Raises:
            UserError: If a constructor refuses its arguments.
        """
        chosen = resolved.values["model"]
        for unmade, known in self._known.items():
            found = known.get(_text(chosen, unmade))
            if found is not None and (found.counted or not count):
                return found.sizes
        self.cli.given = config
        sizes = self._build(self.cli.build_shapes, resolved, count)
        if sizes is None:  # whole numbers on the CPU may have met others in a constructor
            sizes = self._build(self.cli.build_model, resolved, False)
        made = self.cli.constructed
        unmade = frozenset(name for name in _classes(chosen) if import_name(name) not in made)
        built = _Built(sizes=sizes, counted=count)
        self._known.setdefault(unmade, {})[_text(chosen, unmade)] = built
        return sizes

    def _build(
        self, build: Callable[[str, Namespace], LightningModule], resolved: Resolved, count: bool
    ) -> Sizes | None:
        self.builds += 1
        module = built_without_memory(lambda: build("fit", resolved.namespace))
        if module is None:
            return None
        numbers = {True: 0, False: 0}
        for parameter in module.parameters():
            numbers[parameter.requires_grad] += parameter.numel()
        return Sizes(
            trainable=numbers[True],
            frozen=numbers[False],
            flops=forward_flops(module) if count else None,
        )


@dataclass(frozen=True, kw_only=True)
class _Built:
    sizes: Sizes | None
    counted: bool


def _classes(node: object) -> Iterator[str]:
    """Yield the classes that a configuration names."""
    if isinstance(node, dict):
        if isinstance(node.get("class_path"), str):
            yield node["class_path"]
        for value in node.values():
            yield from _classes(value)
    elif isinstance(node, list):
        for value in node:
            yield from _classes(value)


def _text(chosen: object, unmade: frozenset[str]) -> str:
    """Return a configuration as text, without the arguments of what is never made."""
    return json.dumps(_without(chosen, unmade), sort_keys=True, default=repr)


def _without(node: Any, unmade: frozenset[str]) -> Any:  # noqa: ANN401
    if isinstance(node, dict):
        if node.get("class_path") in unmade and unmade.issuperset(_classes(node)):
            return {"class_path": node["class_path"]}
        return {key: _without(value, unmade) for key, value in node.items()}
    return [_without(value, unmade) for value in node] if isinstance(node, list) else node
