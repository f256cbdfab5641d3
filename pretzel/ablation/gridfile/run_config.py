"""Configurations of runs: the base with arms and a seed, weights of stages, and a folder."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import Checkpoint

from pretzel.ablation.gridfile.grid import Override
from pretzel.errors import UserError, did_you_mean
from pretzel.runs.config.class_paths import import_name, subclasses
from pretzel.runs.config.explain import parameters
from pretzel.runs.config.nested import listed, map_leaves
from pretzel.runs.config.overlay import Config, at, override, replaced
from pretzel.runs.config.yaml_lines import Key, Source

WEIGHTS: Key = ("model", "init_args", "weights")
"""The argument through which a link of a chain starts from the one before."""

_STAGE = re.compile(r"\{stages\.([^{}]+)\}")
_SEED_KEYS: tuple[Key, ...] = (
    ("seed_everything",),
    ("model", "init_args", "seed"),
    ("data", "init_args", "seed"),
)


def overridden(config: Config, overrides: Iterable[Override]) -> Config:
    """Return a configuration with overrides laid over it."""
    for one in overrides:
        config = override(config, one.key, one.value, one.source)
    return config


def with_seed(values: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return a configuration with the seeds set that it has."""
    for key in _SEED_KEYS:
        values = put(values, key, seed)
    return values


def put(values: dict[str, Any], key: Key, value: object) -> dict[str, Any]:
    """Return a configuration with another value at a path, where something stands there."""
    parent = at(values, key[:-1]) if key[:-1] else values
    has_value = isinstance(parent, dict) and key[-1] in parent
    return replaced(values, key, value) if has_value else values


def without(values: Any, paths: set[str]) -> Any:  # noqa: ANN401
    """Return a configuration with None in the place of paths."""
    return map_leaves(lambda _, value: None if value in paths else value, values)


def seeded(config: Config, seed: int) -> Config:
    """Return a configuration with the seed in everything that takes one.

    Arms of one seed then share data and noise, whether or not the base sets seeds.
    """
    source = Source(name="seeds")
    config = override(config, "seed_everything", seed, source)
    for group, root in (("model", LightningModule), ("data", LightningDataModule)):
        name = at(config.values, (group, "class_path"))
        if not isinstance(name, str):
            continue
        if "." not in name:
            classes = [c for c in subclasses(root) if c.__name__ == name]
            name = f"{classes[0].__module__}.{classes[0].__qualname__}" if classes else name
        if "seed" in parameters(name):
            config = override(config, f"{group}.init_args.seed", seed, source)
    return config


def substitute(config: Config, weights: dict[str, str]) -> Config:
    """Put the paths of stages' weights in the place of ``{stages.NAME}``.

    Raises:
        UserError: If there is no such stage.
    """

    def substituted(path: Key, value: object) -> object:
        if not isinstance(value, str):
            return value
        for name in _STAGE.findall(value):
            if name not in weights:
                near = did_you_mean(name, weights)
                where = f"{config.source(path)}: {'.'.join(path)}"
                raise UserError(f"{where}: no such stage '{name}'{near}")
        return _STAGE.sub(lambda match: weights[match[1]], value)

    return Config(values=map_leaves(substituted, config.values), sources=config.sources)


def placed(resolved: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the configuration with its outputs in the run's folder."""
    # a run has one process and one log: bars and summaries of many runs would mix
    trainer = {
        **resolved["trainer"],
        "default_root_dir": str(folder),
        "enable_checkpointing": _keeps_checkpoints(resolved["trainer"]),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": {
            "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
            "init_args": {
                "save_dir": str(folder),
                "name": "",
                "version": "",
                "default_hp_metric": False,  # the grid writes hparams for all its runs
            },
        },
    }
    return {**resolved, "ckpt_path": None, "trainer": trainer}


def _keeps_checkpoints(trainer: dict[str, Any]) -> bool:
    """Tell whether the base asks for checkpoints of its own, beside the run's last and final."""
    callbacks = [one for one in listed(trainer.get("callbacks")) if isinstance(one, dict)]
    kinds = [import_name(callback["class_path"]) for callback in callbacks]
    return any(isinstance(kind, type) and issubclass(kind, Checkpoint) for kind in kinds)
