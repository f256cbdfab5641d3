"""Models without data and trainer: of a run, an export or a checkpoint, or of a configuration."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from lightning.pytorch import LightningModule
from typing_extensions import override

from pretzel.errors import UserError
from pretzel.files.weights import read_checkpoint
from pretzel.runs.cli import RunCLI, import_parts
from pretzel.runs.config.class_paths import import_name
from pretzel.runs.config.overlay import Config, fold, read
from pretzel.runs.guards import check_checkpoint
from pretzel.runs.initial_weights import built_by_name
from pretzel.runs.meta_device import built_without_memory
from pretzel.runs.run_folder import is_checkpoint, weights_of
from pretzel.runs.stored_module import (
    build_for_weights,
    build_module,
    load_checkpoint,
    module_of_checkpoint,
)
from pretzel.training.module import PretzelModule
from pretzel.training.text_image_model import TextImageModel, usable_device
from pretzel.typing import Float, Tensor


@runtime_checkable
class KeyedGenerator(Protocol):
    """A module that generates images, each of its own noise, as :class:`.PretzelModule`."""

    seed: int

    @property
    def reads_text(self) -> bool:
        """Whether images depend on their prompts."""

    def generate(
        self, prompts: Sequence[str], keys: Sequence[str], *, seed: int
    ) -> Float[Tensor, "n 3 height width"]:
        """Return one image in [-1, 1] a prompt; its noise depends on its key and the seed alone."""


@runtime_checkable
class RecordsSampling(Protocol):
    """A module that records how its last images were sampled."""

    @property
    def sampling_record(self) -> dict[str, Any]:
        """How the last images were sampled and what they took; empty before the first.

        The keys of ``sampling_record`` and ``work_record`` in
        :mod:`pretzel.generation.sampling_record`.
        """


@runtime_checkable
class LoadsWeights(Protocol):
    """A module that loads the weights of a file whole, as :class:`.CheckpointedModule`."""

    def load_weights(self, path: Path) -> None:
        """Load what ``export`` wrote, or a checkpoint."""


Check = Callable[[LightningModule], None]


class ModelOnly(RunCLI):
    """The command line's own way from a configuration to its model, and no further.

    Args:
        args: A command line of ``fit``.
        replaced: Whether a checkpoint will replace the weights, so that the configuration's own
            ``weights`` are not read.
        check: Refuses a model that cannot do what is asked for. It is given one without memory,
            before any weights are read, or the model itself where a part cannot be built so.

    Attributes:
        model: The model.
        weights: File whose weights the model still lacks, if any.

    Raises:
        UserError: If the configuration is wrong, or names no weights and none replace them.
    """

    def __init__(self, args: list[str], *, replaced: bool, check: Check | None = None) -> None:
        self.replaced = replaced
        self.check = check
        self.weights: Path | None = None
        super().__init__(args)

    @override
    def _set_seed(self) -> None:
        """Keep the random state: the weights come from a file."""

    @override
    def instantiate_classes(self) -> None:
        chosen = self.config["fit"].model
        arguments = chosen.get("init_args") or {}
        start = None if self.replaced else arguments.get("weights")
        if not self.replaced and not start:
            raise UserError(
                "sampling needs trained weights: give --ckpt_path FILE.ckpt or --weights "
                "FILE.safetensors (or weights in the configuration of the model)"
            )
        kind = import_name(chosen.class_path)
        if start and isinstance(kind, type) and issubclass(kind, LoadsWeights):
            # As argument they are where a stage starts: what none has trained is not taken.
            self.weights, start = Path(start), None
        if "weights" in arguments:
            arguments["weights"] = start
        build = partial(self.build_model, "fit", self.config)
        small = None if self.check is None else built_without_memory(build)
        if self.check is not None and small is not None:
            self.check(small)
        self.model = build()
        if self.check is not None and small is None:
            self.check(self.model)

    @override
    def _run_subcommand(self, subcommand: str) -> None:
        """Run nothing."""


def trained_model(
    files: Sequence[str],
    overrides: Sequence[str],
    *,
    checkpoint: Path | None = None,
    weights: Path | None = None,
    check: Check | None = None,
) -> LightningModule:
    """Return the model of a fit configuration with trained weights, in evaluation mode, on CPU.

    Args:
        files: Configuration files, folded as ``fit`` does.
        overrides: Arguments as for ``fit``, such as ``--model.guidance.weight=2``.
        checkpoint: A Lightning checkpoint; of averaged weights it holds the average, as for
            ``test``.
        weights: A file that ``export`` wrote, which is taken whole.
        check: As for :class:`ModelOnly`.

    Raises:
        UserError: If the configuration is wrong, there are no weights, or they do not fit.
    """
    if checkpoint is not None and not checkpoint.is_file():
        raise UserError(f"--ckpt_path: {checkpoint}: no such file")
    if weights is not None and not weights.is_file():
        raise UserError(f"--weights: {weights}: no such file")
    args = ["fit", *(word for file in files for word in ("-c", file)), *overrides]
    if weights is not None:
        args.append(f"--model.init_args.weights={weights}")
    cli = ModelOnly(args, replaced=checkpoint is not None, check=check)
    model: LightningModule = cli.model
    if checkpoint is not None:
        check_checkpoint(str(checkpoint), model)
        load_checkpoint(model, read_checkpoint(checkpoint), f"--ckpt_path: {checkpoint}")
    elif cli.weights is not None:
        assert isinstance(model, LoadsWeights)
        model.load_weights(cli.weights)
    return model.eval()


def load(
    run_or_export: str | Path,
    *,
    config: str | Path | Sequence[str | Path] | Mapping[str, Any] | None = None,
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
    weights, beside = weights_of(Path(run_or_export))
    folded = None if config is None else _read(config)
    if is_checkpoint(weights):
        module = module_of_checkpoint(weights, PretzelModule, folded)
    else:
        if folded is None and beside is None:
            raise UserError(f"{weights}: no config.yaml lies beside it; name one by config=...")
        assert beside is not None or folded is not None
        module = build_for_weights(folded or _read(beside or ""), PretzelModule)
        module.load_weights(weights)
    return TextImageModel(module).to(device)


def build(
    config: str | Path | Sequence[str | Path] | Mapping[str, Any], *, seed: int | None = None
) -> TextImageModel:
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


def _read(config: str | Path | Sequence[str | Path] | Mapping[str, Any]) -> Config:
    import_parts(("pretzel",))  # so that classes have their short names
    if isinstance(config, Mapping):
        values = dict(config) if "model" in config else {"model": dict(config)}
        return Config(values=values)
    files = [config] if isinstance(config, str | Path) else config
    folded = fold([read(file) for file in files])
    if "model" not in folded.values:
        raise UserError(f"{', '.join(map(str, files))}: must configure a model, and does not")
    return folded
