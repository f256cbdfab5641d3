"""The model of a fit configuration alone, with trained weights: no data, no trainer."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from lightning.pytorch import LightningModule
from typing_extensions import override

from pretzel.errors import UserError
from pretzel.runs.cli import RunCLI
from pretzel.runs.config.class_paths import import_name
from pretzel.runs.guards import check_checkpoint
from pretzel.runs.meta_device import built_without_memory
from pretzel.typing import Float, Tensor


@runtime_checkable
class Draws(Protocol):
    """A module whose images can be drawn one by one, as :class:`pretzel.training.PretzelModule`."""

    seed: int

    @property
    def reads_text(self) -> bool:
        """Whether images depend on their prompts."""

    def draw(
        self, prompts: Sequence[str], keys: Sequence[str], *, seed: int
    ) -> Float[Tensor, "n 3 height width"]:
        """Return one image in [-1, 1] a prompt; its noise depends on its key and the seed alone."""


@runtime_checkable
class TellsHow(Protocol):
    """A module that can tell how its last images were sampled."""

    @property
    def sampling_record(self) -> dict[str, Any]:
        """How the last images were sampled and what they took; empty before the first.

        The keys of :func:`pretzel.generation.record.sampling_record` and of its ``work_record``.
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
    given = [word for file in files for word in ("-c", file)]
    start = [] if weights is None else [f"--model.init_args.weights={weights}"]
    arguments = ["fit", *given, *overrides, *start]
    cli = ModelOnly(arguments, replaced=checkpoint is not None, check=check)
    model: LightningModule = cli.model
    if checkpoint is not None:
        _load(model, checkpoint)
    elif cli.weights is not None:
        assert isinstance(model, LoadsWeights)
        model.load_weights(cli.weights)
    return model.eval()


def _load(model: LightningModule, path: Path) -> None:
    check_checkpoint(str(path), model)
    checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    try:
        model.on_load_checkpoint(checkpoint)
        model.load_state_dict(checkpoint["state_dict"])
    except (UserError, RuntimeError) as error:  # torch's own word for what does not fit
        raise UserError(f"--ckpt_path: {path}: {' '.join(str(error).split())}") from error
