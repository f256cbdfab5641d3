"""Models of configurations, built without memory to be checked and counted, each once."""

import pickle
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule
from torch import nn

from pretzel.ablation.planning.config_resolver import Resolved, as_text
from pretzel.ablation.planning.flops import forward_flops, shapes_alone
from pretzel.ablation.planning.metric_names import MetricNames
from pretzel.ablation.protocols import ChecksData, CountsSamples, Manifested
from pretzel.runs.cli import ParseOnlyCLI
from pretzel.runs.config.class_paths import import_name
from pretzel.runs.config.explain import construction
from pretzel.runs.config.nested import leaves, listed
from pretzel.runs.config.overlay import Config
from pretzel.runs.config.typed_parser import TypedParser
from pretzel.runs.meta_device import built_without_memory

_MAX_KEPT_PARTS = 64  # those of the first arms; what is tried in one arm alone is not worth keeping


class PlanningCLI(ParseOnlyCLI):
    """The command line's parser, which notes the classes of what it builds."""

    def __init__(self) -> None:
        super().__init__()
        self.instantiators = [(self._construct, object, True)]
        self.constructed: set[type] = set()
        self._parts: dict[tuple[type, str], bytes] = {}
        self._data: dict[str, object] = {}
        self._manifests: dict[str, dict[str, str]] = {}
        self._callback_names: dict[str, MetricNames] = {}
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

    def manifest(self, config: Config, resolved: Resolved) -> dict[str, str]:
        """Return the content hashes of the data, by ``split/name``; none where none are offered.

        Raises:
            UserError: If a constructor refuses its arguments, or the data is not there.
        """
        text = as_text(resolved.values.get("data"))
        if text not in self._manifests:
            data = self.data(config, resolved)
            with construction(config):
                self._manifests[text] = data.manifest() if isinstance(data, Manifested) else {}
        return self._manifests[text]

    def data(self, config: Config, resolved: Resolved) -> object:
        """Return the data module of a configuration, None where it names none.

        Raises:
            UserError: If a constructor refuses its arguments.
        """
        text = as_text(resolved.values.get("data"))
        if text not in self._data:
            self.user_config = config
            has_data = resolved.namespace.fit.get("data") is not None
            data = self.build_group("data", "fit", resolved.namespace) if has_data else None
            self._data[text] = data
        return self._data[text]

    def callback_names(self, config: Config, resolved: Resolved) -> MetricNames:
        """Return the names of what the callbacks of a parsed configuration log.

        Raises:
            UserError: If a constructor refuses its arguments.
        """
        names = MetricNames()
        for node in listed(resolved.values["trainer"].get("callbacks")):
            text = as_text(node)
            if text not in self._callback_names:
                kind = import_name(node["class_path"])
                assert isinstance(kind, type), "the parser has found it"
                with construction(config):
                    self._callback_names[text] = MetricNames.of(kind, partial(_callback, node))
            names |= self._callback_names[text]
        return names

    def _construct(self, class_type: type, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        self.constructed.add(class_type)
        is_part = self._reuses and issubclass(class_type, nn.Module)
        if not is_part or not _is_plain([*args, *kwargs.values()]):
            return class_type(*args, **kwargs)
        key = class_type, repr((args, sorted(kwargs.items())))
        if pickled := self._parts.get(key):  # a copy, since what is around a part may change it
            return pickle.loads(pickled)
        part = class_type(*args, **kwargs)
        if key not in self._parts and len(self._parts) < _MAX_KEPT_PARTS:
            self._parts[key] = _pickled(part)
        return part


@cache
def _callback_parser() -> TypedParser:
    parser = TypedParser(exit_on_error=False)
    parser.add_argument("--callback", type=Callback)
    return parser


def _callback(node: object) -> Callback:
    parser = _callback_parser()
    chosen = parser.parse_object({"callback": deepcopy(node)})  # which it modifies
    callback: Callback = parser.instantiate(chosen)["callback"]
    return callback


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


@dataclass(frozen=True, kw_only=True)
class BuiltModel:
    """Sizes and names of a model that was built without memory.

    Attributes:
        trainable: Number of parameters that train.
        frozen: Number of those that do not.
        flops: FLOPs of a training step's forward on one sample; None if unknown.
        metrics: Names of what its module logs.
        counted: Maps a data module to what a training step counts; None if unknown.
        check_data: Refuses a data module that does not suit; None if that is unknown.
    """

    trainable: int
    frozen: int
    flops: int | None
    metrics: MetricNames
    counted: Callable[[object], Mapping[str, float]] | None
    check_data: Callable[[object], None] | None


class Builder:
    """Builds each model once.

    Two configurations give the same model also where they differ in a part that is never made: the
    arguments of an optimizer, which a module keeps for later, say nothing about the module.
    """

    def __init__(self, cli: PlanningCLI) -> None:
        self.cli = cli
        self.builds = 0
        # by the classes that were never made, then by the rest of the configuration as text:
        # the model, and whether FLOPs were counted
        self._built: dict[frozenset[str], dict[str, tuple[BuiltModel | None, bool]]] = {}

    def __call__(self, config: Config, resolved: Resolved, *, count: bool) -> BuiltModel | None:
        """Return the model of a configuration; None if it cannot be built without memory.

        FLOPs are counted only on demand: that takes longer than building.

        Raises:
            UserError: If a constructor refuses its arguments.
        """
        chosen = resolved.values["model"]
        for unmade, known in self._built.items():
            model, counted = known.get(as_text(_without(chosen, unmade)), (None, None))
            if counted or counted is count:
                return model
        self.cli.user_config, self.cli.constructed = config, set()
        model = self._build(self.cli.build_shapes, resolved, count)
        if model is None:  # whole numbers on the CPU may have met others in a constructor
            model = self._build(self.cli.build_model, resolved, False)
        made = self.cli.constructed
        unmade = frozenset(name for name in _classes(chosen) if import_name(name) not in made)
        text = as_text(_without(chosen, unmade))
        self._built.setdefault(unmade, {})[text] = model, count
        return model

    def _build(
        self, build: Callable[..., LightningModule], resolved: Resolved, count: bool
    ) -> BuiltModel | None:
        self.builds += 1
        module = built_without_memory(lambda: build("fit", resolved.namespace))
        if module is None:
            return None
        trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
        frozen = sum(p.numel() for p in module.parameters() if not p.requires_grad)
        flops = forward_flops(module) if count else None
        metrics = MetricNames.of(type(module), lambda: module)
        return BuiltModel(
            trainable=trainable,
            frozen=frozen,
            flops=flops,
            metrics=metrics,
            counted=cache(module.counted_samples) if isinstance(module, CountsSamples) else None,
            check_data=cache(module.check_data) if isinstance(module, ChecksData) else None,
        )


def _classes(node: object) -> set[str]:
    """Return the classes that a configuration names."""
    return {str(name) for path, name in leaves(node) if path[-1:] == ("class_path",) and name}


def _without(node: Any, unmade: frozenset[str]) -> Any:  # noqa: ANN401
    """Return a configuration without the arguments of what is never made."""
    if isinstance(node, dict):
        if node.get("class_path") in unmade and unmade.issuperset(_classes(node)):
            return {"class_path": node["class_path"]}
        return {key: _without(value, unmade) for key, value in node.items()}
    return [_without(value, unmade) for value in node] if isinstance(node, list) else node
