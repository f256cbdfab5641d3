"""Modules built from a configuration alone, and from checkpoints that hold theirs."""

from copy import deepcopy
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch import LightningModule

from pretzel.errors import UserError
from pretzel.runs.config import explain
from pretzel.runs.config.overlay import Config, at, replaced
from pretzel.runs.config.typed_parser import TypedParser
from pretzel.runs.config.yaml_lines import Key, Source
from pretzel.runs.import_path import add_working_directory

CONFIGURATION = "model_config"
"""Key of a checkpoint under which it holds the configuration of its module."""
WEIGHTS: Key = ("model", "init_args", "weights")
"""Where a configuration names the weights that training starts from."""

M = TypeVar("M", bound=LightningModule)


@runtime_checkable
class KeepsConfiguration(Protocol):
    """A module whose checkpoints hold the configuration that it was built from.

    Attributes:
        configuration: Its ``class_path`` and ``init_args``, resolved, in plain types; None of a
            module that was built in Python.
    """

    configuration: dict[str, Any] | None


def build_module(config: Config, base: type[M]) -> M:
    """Build the module that ``model`` describes, by the parser of the command line.

    The configuration may be a stranger's: it names classes, of which each must be of its slot's
    type, and nothing else is called.

    Args:
        config: Holds ``model``; its sources appear in the messages.
        base: The class that it must be of.

    Raises:
        UserError: If the configuration is wrong, or a constructor refuses its arguments.
    """
    add_working_directory()  # users' parts are where training has found them
    parser = TypedParser(exit_on_error=False)
    parser.add_subclass_arguments(base, "model", fail_untyped=False, required=True)
    with explain.parsing(config, lambda: ["model"]):
        # a copy: the parser works on what is in lists
        namespace: Namespace = parser.parse_object({"model": deepcopy(config.values["model"])})
    with explain.construction(config):
        module: M = parser.instantiate(namespace).model
    if isinstance(module, KeepsConfiguration):
        text = parser.dump(namespace, skip_unset=False)
        module.configuration = yaml.safe_load(text)["model"]
    return module


def build_for_weights(config: Config, base: type[M]) -> M:
    """Build a module as :func:`build_module`, whose weights will be those of a file.

    The file that training would start from is not read, and the global random state stays.
    """
    if at(config.values, WEIGHTS) is not None:
        config = Config(values=replaced(config.values, WEIGHTS, None), sources=config.sources)
    with torch.random.fork_rng(devices=[]):
        return build_module(config, base)


def config_of_checkpoint(checkpoint: dict[str, Any], path: Path, base: type) -> Config:
    """Return the configuration that a checkpoint holds of a module that should be a ``base``.

    Raises:
        UserError: If it holds none.
    """
    if CONFIGURATION not in checkpoint:
        raise UserError(
            f"{path} holds no configuration of a {base.__name__}: it was not written by "
            "pretzel fit or a grid, or trains another kind of module"
        )
    values = {"model": checkpoint[CONFIGURATION]}
    return Config(values=values, sources={("model",): Source(name=str(path))})


def load_checkpoint(
    module: LightningModule, checkpoint: dict[str, Any], what: str, *, strict: bool = True
) -> None:
    """Load the weights of a checkpoint and what else its module has saved.

    Raises:
        UserError: If it does not fit; ``what``, the place it is from, begins the message.
    """
    try:
        module.on_load_checkpoint(checkpoint)
        module.load_state_dict(checkpoint["state_dict"], strict=strict)
    except (UserError, RuntimeError) as error:  # torch raises the latter where shapes differ
        raise UserError(f"{what}: {' '.join(str(error).split())}") from error
