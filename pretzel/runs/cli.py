"""``pretzel fit | validate | test | predict``: LightningCLI, with files folded and errors short.

Every part, loss weight, optimizer and schedule is chosen in YAML by ``class_path``. Several ``-c``
files are folded by :mod:`pretzel.runs.config.overlay` before the parser sees them; arguments on the
command line come last.
"""

import importlib
import os
import pkgutil
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Literal

import lightning
import yaml
from jsonargparse import Namespace
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import (
    ArgsType,
    LightningArgumentParser,
    LightningCLI,
)
from lightning.pytorch.strategies import (
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
)
from typing_extensions import override

from pretzel.errors import UserError
from pretzel.runs.accumulation import check_accumulation
from pretzel.runs.atomic_checkpoints import AtomicCheckpointIO
from pretzel.runs.config import explain
from pretzel.runs.config.arguments import COMMAND_LINE, lay_arguments_over, split_config_files
from pretzel.runs.config.class_paths import import_name
from pretzel.runs.config.overlay import Config, fold, read
from pretzel.runs.config.own_optimizer import refuse_optimizers
from pretzel.runs.config.typed_parser import TypedParser
from pretzel.runs.exact_resume import make_exact
from pretzel.runs.guards import check_checkpoint, check_last, check_writable, guarded
from pretzel.runs.import_path import PACKAGES, add_working_directory, check_packages
from pretzel.runs.initial_weights import built_by_name
from pretzel.runs.seeding_guard import SeedingGuard, built_without_seeding
from pretzel.runs.selection import check_selection
from pretzel.runs.step_seeds import SeededSteps
from pretzel.runs.stored_module import KeepsConfiguration

# Lightning 2.6 calls jsonargparse by names that the latter has since deprecated
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")

# Some of Lightning's defaults are texts and enums at once, such as the interval of a Timer
yaml.SafeDumper.add_multi_representer(Enum, lambda dumper, one: dumper.represent_data(one.value))

Subcommand = Literal["fit", "validate", "test", "predict"]

_NOT_PARTS = tuple(f"pretzel.{m}" for m in ("__main__", "cli", "ablation", "runs", "testing"))
_SHARDING = (FSDPStrategy, ModelParallelStrategy, DeepSpeedStrategy)  # write folders
_LASTS = ("last", "hpc")  # which Lightning finds
_KNOWN_WARNINGS = (  # Lightning 2.6 on torch 2.15; frozen parts, which are meant
    r".*isinstance\(treespec, LeafSpec\)",
    r"Found \d+ module\(s\) in eval mode",
)


@cache
def import_parts(packages: tuple[str, ...] = PACKAGES) -> None:
    """Import all modules of packages, so that their classes have short names in YAML.

    Users' own parts are named in full, and found in the working directory as well.

    Raises:
        UserError: If a package of another project stands in the place of one of ours.
    """
    add_working_directory()
    check_packages(packages)
    for package in packages:
        root = importlib.import_module(package)
        for module in pkgutil.walk_packages(root.__path__, f"{package}."):
            if not (module.name.startswith(_NOT_PARTS) or ".laws" in module.name):
                importlib.import_module(module.name)


class SaveConfig(Callback):
    """Save the resolved configuration beside the logs; a resumed run overwrites its own.

    Args:
        values: The configuration.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        log_dir = trainer.log_dir  # asks all ranks
        if log_dir is None or not trainer.is_global_zero:
            return
        Path(log_dir).mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(self.values, sort_keys=False)
        header = f"# lightning.pytorch=={lightning.__version__}\n"
        (Path(log_dir) / "config.yaml").write_text(header + text)


class RunParser(TypedParser, LightningArgumentParser):
    """Lightning's parser, which takes from a configuration only what the types ask for."""


class RunCLI(LightningCLI):
    """LightningCLI in subclass mode, under this project's rules.

    Files are folded before parsing, initial weights and what steps draw belong to the seed and a
    name, runs are continued exactly, checkpoints are loaded with ``weights_only=True``, users'
    mistakes become :class:`~pretzel.errors.UserError`, and a mistake leaves no empty run folder.

    Args:
        args: A command line, or ``{subcommand: name, name: {...}}``.

    Attributes:
        instantiators: Functions that construct in the place of classes, as jsonargparse takes them.
    """

    instantiators: Sequence[tuple[Callable[..., Any], type, bool]] = ()

    def __init__(self, args: ArgsType = None) -> None:
        import_parts()
        for message in _KNOWN_WARNINGS:
            warnings.filterwarnings("ignore", message)
        self.user_config = Config(values={})
        self._chosen = _subcommand_name(args)
        parser_kwargs = {"exit_on_error": False}
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            seed_everything_default=0,
            parser_class=RunParser,
            parser_kwargs={
                **parser_kwargs,
                **{name: dict(parser_kwargs) for name in self.subcommands()},
            },
            args=args,
        )

    @staticmethod
    @override
    def subcommands() -> dict[str, set[str]]:
        # never loaded with weights_only=False, so there is no option for it
        return {name: skip | {"weights_only"} for name, skip in LightningCLI.subcommands().items()}

    @override
    def _prepare_subcommand_parser(
        self, klass: type, subcommand: str, **kwargs: Any
    ) -> LightningArgumentParser:
        # the arguments of a subcommand take 0.1 s; those of the others would not be looked at
        if subcommand != self._chosen:
            return self.init_parser(**kwargs)
        return super()._prepare_subcommand_parser(klass, subcommand, **kwargs)

    @override
    def parse_arguments(self, parser: Any, args: ArgsType) -> None:
        if isinstance(args, dict | Namespace):
            self.config = self.parse(args["subcommand"], Config(values=args[args["subcommand"]]))
            return
        name, *rest = sys.argv[1:] if args is None else args
        files, rest = split_config_files(rest)
        folded = fold([read(file) for file in files])
        folded, self.user_config, rest = lay_arguments_over(folded, rest)
        refuse_optimizers(self.user_config)
        text = ["--config", yaml.safe_dump(folded.values, sort_keys=False)] if files else []
        with self._explained(name, self.user_config):
            own = self._subcommand_parsers.get(name)
            if own is None or any(option.startswith("--print_config") for option in rest):
                self.config = parser.parse_args([name, *text, *rest])
            else:
                self.config = _under(name, own.parse_args([*text, *rest]))

    def parse(self, subcommand: str, config: Config) -> Namespace:
        """Parse a folded configuration without instantiating anything.

        Args:
            subcommand: For example ``fit``.
            config: What to parse; its sources appear in the messages.

        Returns:
            The parser's namespace, with the subcommand's part under its name.

        Raises:
            UserError: If the configuration is wrong.
        """
        self.user_config = config
        refuse_optimizers(config)
        with self._explained(subcommand, config):
            return _under(subcommand, self._parser(subcommand).parse_object(config.values))

    def build_model(self, subcommand: str, namespace: Namespace) -> LightningModule:
        """Build the model of a parsed configuration, and nothing else.

        Args:
            subcommand: For example ``fit``.
            namespace: What :meth:`parse` returned.

        Raises:
            UserError: If a constructor refuses its arguments.
        """
        model: LightningModule = self.build_group("model", subcommand, namespace)
        return model

    def build_group(self, group: str, subcommand: str, namespace: Namespace) -> Any:  # noqa: ANN401
        """Build the model or the data of a parsed configuration, as :meth:`build_model` does."""
        self.config, self.subcommand = namespace, subcommand  # where hyperparameters are looked up
        chosen = Namespace({group: namespace[subcommand][group]})  # type: ignore[no-untyped-call]
        parser = self._parser(subcommand)
        with explain.construction(self.user_config):
            return parser.instantiate(chosen, instantiators=self.instantiators)[group]

    def resolved(self, subcommand: str, namespace: Namespace) -> dict[str, Any]:
        """Return a parsed configuration as plain values, defaults included."""
        text = self._parser(subcommand).dump(  # validated when it was parsed
            namespace[subcommand], skip_unset=False, skip_validation=True
        )
        values: dict[str, Any] = yaml.safe_load(text)
        _keep_whole_numbers(values["trainer"], self.user_config)
        return values

    def _explained(self, subcommand: str, config: Config) -> AbstractContextManager[None]:
        if config.values.get("config") is not None:  # the parser would read it, unseen by all else
            where = config.source(("config",))
            raise UserError(f"{where}: config: a configuration takes no other in; add it with -c")
        parser = self._subcommand_parsers.get(subcommand)
        return explain.parsing(config, lambda: parser.get_defaults().keys() if parser else ())

    @override
    def _parse_ckpt_path(self) -> None:
        """Leave the model as configured: a checkpoint's hyperparameters do not overrule YAML."""

    @override
    def _dump_config(self) -> None:
        if "config_dump" not in vars(self):
            self.config_dump = self.resolved(str(self.subcommand), self.config)

    @override
    def instantiate_classes(self) -> None:
        trainer, model = self._get(self.config, "trainer"), self._get(self.config, "model")
        check_writable(trainer)
        if self.subcommand == "fit":
            module = import_name(model["class_path"])
            check_accumulation(module, trainer.accumulate_grad_batches, self.user_config)
        chosen = model.get("init_args") or {}
        if self._get(self.config, "ckpt_path") is not None and chosen.get("weights"):
            chosen["weights"] = None  # the checkpoint replaces them: they need not be there
        with explain.construction(self.user_config):
            if self.seed is None:
                built_without_seeding(self._instantiated)
            else:
                built_by_name(self._instantiated, self.seed)

    @property
    def seed(self) -> int | None:
        """Seed of the run, drawn where ``seed_everything`` is true; None where it is false."""
        seed = self._get(self.config, "seed_everything")
        return None if seed is False else int(seed)

    def _instantiated(self) -> LightningModule:
        super().instantiate_classes()
        model: LightningModule = self.model
        if isinstance(model, KeepsConfiguration):
            model.configuration = deepcopy(self.config_dump["model"])
        return model

    @override
    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        _keep_whole_numbers(config, self.user_config)
        plugins = config.get("plugins") or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            config["plugins"] = [*plugins, AtomicCheckpointIO()]
        if not config.get("fast_dev_run"):
            callbacks = [*callbacks, SaveConfig(self.config_dump)]
        trainer = super()._instantiate_trainer(config, callbacks)
        make_exact(trainer)
        first: list[Callback] = [SeedingGuard()]
        if self.seed is not None:
            first = [SeededSteps(self.seed), *first]
        trainer.callbacks[:0] = first  # type: ignore[attr-defined]
        return trainer

    @override
    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        return {**super()._prepare_subcommand_kwargs(subcommand), "weights_only": True}

    @override
    def _run_subcommand(self, subcommand: str) -> None:
        path = self._get(self.config, "ckpt_path")
        check_checkpoint(path, self.model, resumes=subcommand == "fit")
        if path == "last" and subcommand != "fit":
            check_last(self.trainer)
        written = self.user_config.source(("ckpt_path",))
        shards = isinstance(self.trainer.strategy, _SHARDING)
        is_sharded = path is not None and (Path(path).is_dir() or (shards and path in _LASTS))
        if is_sharded and written not in (None, COMMAND_LINE):
            raise UserError(
                f"{written}: ckpt_path: {path} is a sharded checkpoint, which torch unpickles: "
                "name it on the command line, by --ckpt_path, if it is your own"
            )
        if subcommand == "fit":
            check_selection(self.config_dump, self.datamodule, self.user_config)
        with guarded(self.trainer, path):
            super()._run_subcommand(subcommand)


class ParseOnlyCLI(RunCLI):
    """The same parser, for planning: nothing is seeded, instantiated or run.

    Args:
        subcommand: The only one whose configurations can be parsed.
    """

    def __init__(self, subcommand: Subcommand = "fit") -> None:
        super().__init__({"subcommand": subcommand})

    @override
    def parse_arguments(self, parser: Any, args: ArgsType) -> None:
        self.config = Namespace({"subcommand": None})  # type: ignore[no-untyped-call]

    @override
    def _set_seed(self) -> None:
        """Keep the random state."""

    @override
    def instantiate_classes(self) -> None:
        """Build nothing."""


def _under(subcommand: str, namespace: Namespace) -> Namespace:
    # what the parser above would return, which validates everything once more
    return Namespace({"subcommand": subcommand, subcommand: namespace})  # type: ignore[no-untyped-call]


def _subcommand_name(args: ArgsType) -> str | None:
    if isinstance(args, dict | Namespace):
        return str(args["subcommand"])
    return next(iter(sys.argv[1:] if args is None else args), None)


def _keep_whole_numbers(trainer: dict[str, Any], user_config: Config) -> None:
    """Leave ``trainer.limit_val_batches: 1`` one batch: to the Trainer, 1.0 means all of them.

    Its parameters are ``int | float | None``, but ``typing`` caches unions by a hash that forgets
    the order, so that after other imports the parser may see ``float | int | None``, and it takes
    the first member that fits.
    """
    user_values = user_config.values.get("trainer")
    if not isinstance(user_values, dict):
        return
    for name, value in user_values.items():
        if type(value) is int and isinstance(trainer.get(name), float):
            trainer[name] = value
