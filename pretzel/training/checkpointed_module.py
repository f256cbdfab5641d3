"""State of a trained module: what it saves, and starts from; frozen parts are only named."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import nn
from torch.nn.modules.module import _IncompatibleKeys

from pretzel.errors import UserError
from pretzel.files.sharded_tensors import all_whole
from pretzel.files.weights import check_architecture, check_frozen, read_checkpoint, save_exported
from pretzel.interleave.skips import SkipConnection
from pretzel.latent.generative_model import GenerativeModel
from pretzel.model import Pretzel
from pretzel.runs.stored_module import (
    CONFIGURATION,
    build_for_weights,
    config_of_checkpoint,
    load_checkpoint,
)
from pretzel.sampling.denoisers import Denoiser, TrainableDenoiser
from pretzel.sampling.samplers import Sampler
from pretzel.training.global_batch import GlobalBatchModule
from pretzel.training.starting_weights import (
    SAMPLER,
    UNTRAINED,
    StartingWeights,
    check_record,
    read_weights,
)
from pretzel.typing import Tensor

S = TypeVar("S", bound="CheckpointedModule")  # not Self, which the shape checks of the tests refuse


class CheckpointedModule(GlobalBatchModule):
    """A model with its denoiser and sampler: states, checkpoints and starting weights.

    A state holds what is not frozen for good, parameters of the denoiser included. Checkpoints and
    exported weights name the frozen parts by content, and hold the state of the sampler.
    """

    def __init__(self, pretzel: GenerativeModel, denoiser: Denoiser, sampler: Sampler) -> None:
        super().__init__()
        self.pretzel = pretzel
        self.register_state_dict_post_hook(_leave_out_frozen)  # type: ignore[no-untyped-call]
        self.denoiser = denoiser
        self.sampler = sampler
        self.denoiser.fit_to(pretzel.latent.channels, pretzel.latent.grid)
        # Whether the denoiser has no trained weights although the flow has
        self._denoiser_lacks = False
        # Names of parameters that no earlier stage has trained; None where there was no stage
        self._as_configured: set[str] | None = None
        self.configuration: dict[str, Any] | None = None  # set by whoever builds it from one

    # What trains

    def _trainable(self) -> dict[str, nn.Parameter]:
        named = dict(self.pretzel.named_parameters())
        if isinstance(self.denoiser, nn.Module):
            named |= self.denoiser.named_parameters(prefix="denoiser")
        return {name: parameter for name, parameter in named.items() if parameter.requires_grad}

    def _trained_denoiser(self) -> TrainableDenoiser | None:
        denoiser = self.denoiser
        if not isinstance(denoiser, TrainableDenoiser):
            return None
        return denoiser if any(p.requires_grad for p in denoiser.parameters()) else None

    def on_fit_start(self) -> None:
        """Let a denoiser that has no trained weights train from its beginning."""
        if self._trained_denoiser() is not None:
            self._denoiser_lacks = False

    def check_denoiser(self) -> None:
        """Raise a UserError if the denoiser's weights were not in the file of the flow's."""
        if self._denoiser_lacks:
            raise UserError(
                f"denoiser {type(self.denoiser).__name__} has no trained weights: the flow's were "
                "trained without one; choose another denoiser, or train this one with fit"
            )

    # States

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> _IncompatibleKeys:
        """Load a state without the frozen parts.

        Raises:
            UserError: If the state is that of another architecture.
        """
        if strict:
            self.check_state(state_dict, "checkpoint")
        loaded: _IncompatibleKeys = super().load_state_dict(state_dict, False, assign)
        self._denoiser_lacks = self._denoiser_missing_from(state_dict) or any(
            map(_denoises, self._as_configured or ())
        )
        return loaded

    def check_state(self, state: Mapping[str, Tensor], source: str) -> None:
        """Refuse a state that does not fit.

        A denoiser is a part of its own: the flow of a state can be used with another one, and one
        without parameters leaves those of the state's alone. Tensors may be without memory.

        Raises:
            UserError: If the state is that of another architecture; in ``fit``, if it has another
                denoiser, whose optimizer state would be missing or foreign.
        """
        own = self.state_dict()
        is_fit = self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING
        # In fit the optimizer's state must fit too, so a denoiser must be the same
        if not is_fit:
            missing = self._denoiser_missing_from(state)
            own = {name: value for name, value in own.items() if not (missing and _denoises(name))}
            if not any(map(_denoises, own)):
                state = {name: value for name, value in state.items() if not _denoises(name)}
        check_architecture(own, state, source)

    def _denoiser_missing_from(self, state: Mapping[str, Any]) -> bool:
        return any(map(_denoises, self.state_dict())) and not any(map(_denoises, state))

    # Files

    def load_weights(self, path: Path) -> None:
        """Load what :meth:`export` wrote, or a checkpoint, whole, to be used as it was trained.

        Raises:
            UserError: If it cannot be read, is that of another architecture, or was trained around
                other frozen parts.
        """
        start = read_weights(path, shapes_only=self._is_meta)
        self._as_configured = set(start.untrained or ())
        self._take(start, start.state, f"weights {path}")

    def _start_from(self, path: Path) -> None:
        source = f"weights {path}"
        start = read_weights(path, shapes_only=self._is_meta)
        own = self.state_dict()
        state = start.over(own)
        self._as_configured = {n for n, value in own.items() if state.get(n) is value}
        self._take(start, state, source)
        if self._as_configured:
            parts = sorted({_part_named(name) for name in self._as_configured})
            rank_zero_info(f"{source}: these parts start as configured: {', '.join(parts)}")

    @property
    def _is_meta(self) -> bool:  # built to be checked and counted only
        return self.pretzel.device.type == "meta"

    def _take(self, start: StartingWeights, state: Mapping[str, Tensor], source: str) -> None:
        if not self._is_meta:
            named = {n: start.frozen[n] for n in self.pretzel.frozen if n in start.frozen}
            check_frozen({n: self.pretzel.frozen[n].identity for n in named}, named, source)
        self.check_state(state, source)
        if not self._is_meta:
            self.load_state_dict(state)
            self.sampler.load_state(start.sampler)

    def _check_off(self) -> None:
        """Refuse skips that are on although no stage trains them."""
        untrained = self._untrained()
        for name, skip in self.named_modules():
            is_on = isinstance(skip, SkipConnection) and not skip.starts_at_zero
            if is_on and any(other.startswith(f"{name}.") for other in untrained):
                raise UserError(
                    f"trains must name {name.removeprefix('pretzel.')}, which is on from the "
                    f"start ({type(skip).__name__}) and has not been trained; where it is not to "
                    "train, choose ZeroSkip"
                )

    def _flow_is_shut_out(self) -> bool:
        """Tell whether nothing of the deep stream reaches text, nor will while this stage trains.

        By the names of what has been trained, not by values: a strategy may have sharded them.
        """
        if not isinstance(self.pretzel, Pretzel):
            return False
        skips = self.pretzel.interleaving.skips_to_text()
        if skips is None:
            return False
        untrained = set(self._untrained())
        names = {module: name for name, module in self.named_modules()}
        return all(
            skip.starts_at_zero
            and all(f"{names[skip]}.{name}" in untrained for name, _ in skip.named_parameters())
            for skip in skips
        )

    def setup(self, stage: str) -> None:
        """Take the hashes of the frozen parts while they are whole: a strategy may shard them."""
        super().setup(stage)
        if not self._is_meta:
            self.frozen_identities()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Name the frozen parts."""
        checkpoint["frozen"] = self.frozen_identities()
        checkpoint[SAMPLER] = self.sampler.state()
        checkpoint[UNTRAINED] = self._untrained()
        if self.configuration is not None:
            checkpoint[CONFIGURATION] = self.configuration

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raise a UserError if the checkpoint was trained around other frozen parts."""
        check_record(checkpoint, "checkpoint")
        check_frozen(self.frozen_identities(), checkpoint.get("frozen", {}), "checkpoint")
        self.sampler.load_state(checkpoint.get(SAMPLER, {}))
        self._as_configured = set(checkpoint.get(UNTRAINED, ()))

    @classmethod
    def load_from_checkpoint(
        cls: type[S],
        checkpoint_path: Any,  # noqa: ANN401
        map_location: Any = None,  # noqa: ANN401
        hparams_file: Any = None,  # noqa: ANN401
        strict: bool | None = None,
        weights_only: bool | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> S:
        """Build the module of a checkpoint from the configuration in it, and load its weights.

        Files are read with ``weights_only=True``, and the configuration goes through the parser,
        like one in YAML: a stranger's checkpoint runs no code of its own.

        Example::

            module = PretzelModule.load_from_checkpoint("runs/quickstart/stacked/seed0/final.ckpt")

        Args:
            checkpoint_path: A checkpoint that ``pretzel fit`` or a grid has written.
            map_location: Device of the module; None for the CPU.
            hparams_file: Not taken: the checkpoint holds the configuration.
            strict: As for :meth:`load_state_dict`; None for true.
            weights_only: Always true.
            **kwargs: None are taken.

        Raises:
            UserError: If the file is no such checkpoint, its module is no ``cls``, or an argument
                is given that is not taken.
        """
        if hparams_file is not None or weights_only is False or kwargs:
            raise UserError(
                "load_from_checkpoint takes a path, map_location and strict: all else is in the "
                "checkpoint, which is read with weights_only=True; for another configuration, use "
                "pretzel.load(path, config=...)"
            )
        path = Path(checkpoint_path)
        checkpoint = read_checkpoint(path)
        module = build_for_weights(config_of_checkpoint(checkpoint, path, cls), cls)
        load_checkpoint(module, checkpoint, str(path), strict=strict is not False)
        return module if map_location is None else module.to(map_location)

    def _untrained(self) -> list[str]:
        """Return the names of the parameters that neither this stage nor one before trains."""
        trained = {name if _denoises(name) else f"pretzel.{name}" for name in self._trainable()}
        begun = self._as_configured
        return sorted((set(self.state_dict()) if begun is None else begun) - trained)

    def frozen_identities(self) -> dict[str, str]:
        """Return name and content hash of every frozen part."""
        return {name: part.identity for name, part in self.pretzel.frozen.items()}

    def export(self, path: Path) -> None:
        """Write the trained weights as safetensors, frozen parts named in the metadata."""
        tensors = {name: value.contiguous() for name, value in all_whole(self.state_dict()).items()}
        metadata = {
            **self.frozen_identities(),
            SAMPLER: json.dumps(self.sampler.state()),
            UNTRAINED: json.dumps(self._untrained()),
        }
        save_exported(tensors, path, metadata)


def _part_named(name: str) -> str:
    words = name.split(".")
    return words[0] if _denoises(name) else ".".join(words[1:3])


def _denoises(name: str) -> bool:
    return name.startswith("denoiser.")


def _leave_out_frozen(
    module: nn.Module, state: dict[str, Any], prefix: str, local_metadata: dict[str, Any]
) -> None:
    assert isinstance(module, CheckpointedModule)
    frozen = tuple(f"{prefix}pretzel.{name}." for name in module.pretzel.frozen)
    for key in [key for key in state if key.startswith(frozen)]:
        del state[key]
