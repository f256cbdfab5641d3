"""Models without data and trainer: of a run, an export or a checkpoint, or of a configuration."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pretzel.errors import UserError
from pretzel.files.weights import read_checkpoint
from pretzel.runs.cli import import_parts
from pretzel.runs.config.overlay import Config, at, fold, override, read
from pretzel.runs.config.yaml_lines import Source
from pretzel.runs.initial_weights import built_by_name
from pretzel.runs.meta_device import built_without_memory
from pretzel.runs.run_folder import is_checkpoint, weights_of
from pretzel.runs.stored_module import (
    WEIGHTS,
    build_for_weights,
    build_module,
    config_of_checkpoint,
    load_checkpoint,
)
from pretzel.training.module import PretzelModule
from pretzel.training.text_image_model import TextImageModel, usable_device

ConfigSource = str | Path | Sequence[str | Path] | Mapping[str, Any]
"""File(s) of ``pretzel fit``, folded in the same way, or a mapping like one."""


def trained_module(
    weights: Path | None,
    config: ConfigSource | None = None,
    *,
    overrides: Sequence[tuple[str, Any]] = (),
    check: Callable[[PretzelModule], None] | None = None,
) -> PretzelModule:
    """Return a module with trained weights, in evaluation mode, on the CPU.

    Args:
        weights: A checkpoint (of averaged weights it holds the average), or a file that ``export``
            wrote, which is taken whole; None for the ``weights`` of the configuration.
        config: A configuration in the place of the one that is kept with the weights.
        overrides: Dotted keys of the configuration, such as ``model.guidance.weight``, and what
            they are to be.
        check: Refuses a module that cannot do what is asked for. It is given one without memory,
            before any weights are read, or the module itself where a part cannot be built so.

    Raises:
        UserError: If the configuration is wrong, there are no weights, or they do not fit.
    """
    if config is not None:
        folded = _read(config)
    else:
        folded = Config(values={}) if weights is None else _kept_with(weights)
    if overrides:
        import_parts(("pretzel",))  # so that classes have their short names
    for key, value in overrides:
        folded = override(folded, key, value, Source(name="command line"))
    weights = weights or at(folded.values, WEIGHTS)
    if not weights:
        raise UserError(
            "sampling needs trained weights: give --ckpt_path FILE.ckpt or --weights "
            "FILE.safetensors (or weights in the configuration of the model)"
        )
    build = partial(build_for_weights, folded, PretzelModule)
    small = None if check is None else built_without_memory(build)
    if check is not None and small is not None:
        check(small)
    module = build()
    if check is not None and small is None:
        check(module)
    weights = Path(weights)
    if is_checkpoint(weights):
        load_checkpoint(module, read_checkpoint(weights), str(weights))
    else:
        module.load_weights(weights)
    return module.eval()


def load(
    run_or_export: str | Path,
    *,
    config: ConfigSource | None = None,
    device: torch.device | str = "cpu",
) -> TextImageModel:
    """Load a trained model.

    What is loaded runs no code of its own: weights are read with ``weights_only=True`` or as
    safetensors, and a configuration names classes, each of the type that its place asks for. Of
    averaged weights these are the averages.

    Example::

        model = pretzel.load("runs/quickstart/stacked/seed0")           # a run of a grid
        model = pretzel.load("runs/easy_vqa/lightning_logs/version_0")  # a run of pretzel fit
        model = pretzel.load("last.ckpt", device="cuda")
        model = pretzel.load("my_export")                               # of pretzel export
        model = pretzel.load("imported/imagenet64")                     # of pretzel import

    Args:
        run_or_export: The folder of a run (its newest checkpoint is taken), a checkpoint, a folder
            that ``pretzel export`` or ``pretzel import`` has written, or a file of exported
            weights beside its ``config.yaml``.
        config: A configuration to be used instead of the one that is kept with the weights, as
            for :func:`build`.
        device: Where the model is to be.

    Raises:
        UserError: If there is no run, checkpoint or export, the weights are those of another
            architecture, a part that the configuration names is missing, or there is no such
            device.
    """
    device = usable_device(device)  # before anything is read
    weights, _ = weights_of(Path(run_or_export))
    return TextImageModel(trained_module(weights, config)).to(device)


def build(config: ConfigSource, *, seed: int | None = None) -> TextImageModel:
    """Build an untrained model, with the weights from which ``pretzel fit`` would start.

    Example::

        model = pretzel.build("ablations/base/easy_vqa.yaml")
        model = pretzel.build(["base.yaml", "change.yaml"], seed=1)

    Args:
        config: YAML file(s) of ``pretzel fit``, folded in the same way, or a mapping like one: its
            ``model`` is built, its data and trainer are not looked at.
        seed: Seed of the weights; None for ``seed_everything`` of the configuration.

    Raises:
        UserError: If the configuration is wrong or has no ``model``.
    """
    folded = _read(config)
    if seed is None:
        seed = int(folded.values.get("seed_everything") or 0)
    return TextImageModel(built_by_name(lambda: build_module(folded, PretzelModule), seed))


def _kept_with(weights: Path) -> Config:
    """Return the configuration in a checkpoint, or in the file beside exported weights."""
    if is_checkpoint(weights):
        return config_of_checkpoint(read_checkpoint(weights), weights, PretzelModule)
    _, beside = weights_of(weights)
    if beside is None:
        raise UserError(f"{weights}: no config.yaml lies beside it; name one by config=... or -c")
    return _read(beside)


def _read(config: ConfigSource) -> Config:
    import_parts(("pretzel",))  # so that classes have their short names
    if isinstance(config, Mapping):
        values = dict(config) if "model" in config else {"model": dict(config)}
        return Config(values=values)
    files = [config] if isinstance(config, str | Path) else config
    folded = fold([read(file) for file in files])
    if "model" not in folded.values:
        raise UserError(f"{', '.join(map(str, files))}: must configure a model, and does not")
    return folded
