"""Exponential moving average of the weights that train, and of nothing else.

Lightning's callback copies the whole module, swaps buffers too and expects every weight in every
checkpoint. Here most of the module may be a frozen vision-language model that checkpoints omit, so
only parameters with ``requires_grad`` are copied, averaged, swapped and saved.
"""

import weakref
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from typing_extensions import override

from callbacks.evaluation import check_counts
from pretzel.errors import UserError
from pretzel.files.sharded_tensors import all_whole, copy_whole, local
from pretzel.files.weights import check_architecture


class EMAWeightAveraging(Callback):
    """Average the trainable weights after optimizer steps, and evaluate with the average.

    The average starts as a copy of the weights after the first update and then follows
    ``average <- decay * average + (1 - decay) * weights``. The module holds the averaged weights
    from ``on_validation_start`` to ``on_validation_end``, that is around *all* epoch and batch
    hooks of a validation, so the callbacks that measure in those hooks may stand before or after
    this one. After training it holds the averaged weights.

    A checkpoint's ``state_dict`` has the averaged weights; ``current_model_state`` holds the
    weights that the optimizer works on, trainable ones only, whenever the checkpoint is saved:
    between steps, in the middle of a validation that raised, or after training. Buffers are not
    averaged and frozen parameters are never written.

    Args:
        decay: Weight of the old average at each update, in [0, 1).
        update_every_n_steps: Number of optimizer steps between updates; the decay counts per
            update.

    Raises:
        UserError: If an argument is out of range; if a ``ModelCheckpoint`` has
            ``save_weights_only`` (Lightning would save the weights that are not averaged); if a
            checkpoint holds other trainable weights than the module.
    """

    averages_weights: ClassVar[bool] = True
    """That weights of its checkpoints are averages: a fact beside what is measured of them."""

    def __init__(self, decay: float = 0.999, update_every_n_steps: int = 1) -> None:
        if not 0.0 <= decay < 1.0:
            raise UserError(f"EMAWeightAveraging: decay must lie in [0, 1), got {decay}")
        check_counts(self, update_every_n_steps=update_every_n_steps)
        self.decay = decay
        self.update_every_n_steps = update_every_n_steps
        self._averages: dict[str, Tensor] = {}  # empty until fit starts
        self._num_updates = 0
        self._last_step = 0
        self._module: weakref.ref[LightningModule] | None = None
        # Whether module and averages are exchanged: the module then holds the averages
        self._is_swapped = False

    def metric_names(self) -> set[str]:
        """Return nothing: it logs no metric."""
        return set()

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"latest_update_step": self._last_step}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._last_step = state_dict["latest_update_step"]

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.save_weights_only:
                raise UserError(
                    "ModelCheckpoint: save_weights_only must be false with EMAWeightAveraging, "
                    "else the file would hold the weights that are not averaged"
                )
        if self._module is None:
            return
        if stage != "fit" or self._module() is not pl_module:
            # After training the module holds the average: what it is evaluated with from now on.
            self._averages, self._num_updates, self._is_swapped = {}, 0, False
            self._module = None
        elif self._is_swapped:
            self._swap(pl_module)  # fit continues with the weights the optimizer knows

    def _start(self, pl_module: LightningModule) -> None:
        # Later than setup, because a LightningModule may freeze parameters in its own setup.
        if self._module is None:
            self._module = weakref.ref(pl_module)
            self._averages = {n: p.detach().clone() for n, p in _trainable(pl_module).items()}

    def _followed(self, pl_module: LightningModule) -> dict[str, nn.Parameter]:
        """Return the live parameters, after moving each average to the device of its own."""
        live = _trainable(pl_module)
        if list(live) != list(self._averages):
            raise UserError(
                "the set of trainable parameters must not change while EMAWeightAveraging runs, "
                f"but these changed: {sorted(set(live) ^ set(self._averages))[:5]}"
            )
        for name, parameter in live.items():
            self._averages[name] = self._averages[name].to(parameter.device)
        return live

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # The module is on its device now; later moves could happen under inference mode.
        self._start(pl_module)
        self._followed(pl_module)

    @override
    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        step = trainer.global_step  # it stands still while gradients are being accumulated
        if step <= self._last_step or (step - 1) % self.update_every_n_steps:
            return
        current = [local(parameter) for parameter in self._followed(pl_module).values()]
        averages = [local(average) for average in self._averages.values()]
        if self._num_updates == 0:
            torch._foreach_copy_(averages, current)
        else:
            torch._foreach_lerp_(averages, current, 1 - self.decay)
        self._num_updates += 1
        self._last_step = step

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._module is not None and not self._is_swapped:
            self._swap(pl_module)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and self._is_swapped:
            self._swap(pl_module)

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        for module in pl_module.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # its weights are gathered during a validation
        self.on_validation_end(trainer, pl_module)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Exchanged, not copied: checkpoints saved later must still have the optimizer's weights.
        self._swap(pl_module)

    @torch.no_grad()
    def _swap(self, pl_module: LightningModule) -> None:
        """Exchange current and averaged values in place, one tensor at a time."""
        for name, parameter in self._followed(pl_module).items():
            weights, average = local(parameter), local(self._averages[name])
            current = weights.clone()
            weights.copy_(average)
            average.copy_(current)
        self._is_swapped = not self._is_swapped

    @override
    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._module is None:
            return
        live = {name: parameter.detach() for name, parameter in _trainable(pl_module).items()}
        averaged, current = (live, self._averages) if self._is_swapped else (self._averages, live)
        is_kept = trainer.is_global_zero  # by the process that writes
        checkpoint["state_dict"] = checkpoint["state_dict"] | all_whole(averaged, is_kept)
        checkpoint["current_model_state"] = all_whole(current, is_kept)
        checkpoint["averaging_state"] = {"n_averaged": torch.tensor(self._num_updates)}

    @override
    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            return  # the state_dict that Lightning has loaded is the average
        self._start(pl_module)
        live = _trainable(pl_module)
        saved = checkpoint.get("state_dict", live)  # a sharding strategy has loaded it by now
        current = checkpoint.get("current_model_state")
        if current is None:
            rank_zero_info(
                "EMAWeightAveraging: the checkpoint has no average; it starts from its weights."
            )
            _load(self._averages, live)
            self._num_updates = 0
            return
        _load(self._averages, saved)
        _load(live, current)
        self._num_updates = int(checkpoint["averaging_state"]["n_averaged"])


def _trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def _load(targets: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> None:
    """Copy tensors by name.

    Raises:
        UserError: If a name is missing or a shape differs.
    """
    state = {name: source[name] for name in targets if name in source}
    check_architecture(targets, state, "the averages of the checkpoint")
    for name, tensor in targets.items():
        copy_whole(tensor, state[name])
