"""The configuration of a cell: base, arms, seed, the weights of stages, and its folder."""

import re
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import Checkpoint

from pretzel.ablation.gridfile.grid import Combination
from pretzel.errors import UserError, did_you_mean
from pretzel.runs.config.class_paths import import_name, subclasses
from pretzel.runs.config.explain import parameters
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


def with_arms(base: Config, combination: Combination, link: str) -> Config:
    """Lay the arms of a combination over a link's configuration."""
    config = base
    for change in combination.overrides(link):
        if change.key:
            config = override(config, change.key, change.value, change.source)
    return config


def with_seed(values: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return a configuration with the seeds set that it has."""
    for key in _SEED_KEYS:
        values = put(values, key, seed)
    return values


def put(values: dict[str, Any], key: Key, value: object) -> dict[str, Any]:
    """Return a configuration with another value at a path, where something stands there."""
    parent = at(values, key[:-1]) if key[:-1] else values
    has_one = isinstance(parent, dict) and key[-1] in parent
    return replaced(values, key, value) if has_one else values


def paths_in(node: object, paths: set[str]) -> set[str]:
    """Return those of the paths that a configuration names."""
    if isinstance(node, dict):
        return set().union(*(paths_in(value, paths) for value in node.values()))
    if isinstance(node, list):
        return set().union(*(paths_in(value, paths) for value in node))
    return {node} & paths if isinstance(node, str) else set()


def seeded(config: Config, seed: int) -> Config:
    """Give the seed to everything that takes one, so that arms share data and noise."""
    source = Source(name="seeds")
    config = override(config, "seed_everything", seed, source)
    for group, root in (("model", LightningModule), ("data", LightningDataModule)):
        name = at(config.values, (group, "class_path"))
        if not isinstance(name, str):
            continue
        if "." not in name:
            loaded = [c for c in subclasses(root) if c.__name__ == name]
            name = f"{loaded[0].__module__}.{loaded[0].__qualname__}" if loaded else name
        if "seed" in parameters(name):
            config = override(config, f"{group}.init_args.seed", seed, source)
    return config


def substitute(node: Any, weights: dict[str, str], config: Config, path: Key = ()) -> Any:  # noqa: ANN401
    """Put the paths of stages' weights in the place of ``{stages.NAME}``."""
    if isinstance(node, dict):
        return {k: substitute(v, weights, config, (*path, str(k))) for k, v in node.items()}
    if isinstance(node, list):
        return [substitute(value, weights, config, path) for value in node]
    if not isinstance(node, str):
        return node
    for name in _STAGE.findall(node):
        if name not in weights:
            near = did_you_mean(name, weights)
            where = f"{config.source(path)}: {'.'.join(path)}"
            raise UserError(f"{where}: no such stage '{name}'{near}")
    return _STAGE.sub(lambda found: weights[found[1]], node)


def without(node: Any, paths: set[str]) -> Any:  # noqa: ANN401
    """Put None in the place of paths."""
    if isinstance(node, dict):
        return {key: without(value, paths) for key, value in node.items()}
    if isinstance(node, list):
        return [without(value, paths) for value in node]
    return None if isinstance(node, str) and node in paths else node


def placed(resolved: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the configuration with its outputs in the cell's folder."""
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
                "default_hp_metric": False,
            },
        },
    }
    return {**resolved, "ckpt_path": None, "trainer": trainer}


def _keeps_checkpoints(trainer: dict[str, Any]) -> bool:
    """Tell whether the base asks for checkpoints of its own, beside the cell's last and final."""
    callbacks = trainer.get("callbacks") or []
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        found = import_name(callback["class_path"]) if isinstance(callback, dict) else None
        if isinstance(found, type) and issubclass(found, Checkpoint):
            return True
    return False
