"""Exponential moving average of the weights that train, and of nothing else.

Lightning's callback copies the whole module, swaps buffers too and expects every weight in every
checkpoint. Here most of the module may be a frozen vision-language model that checkpoints omit, so
only parameters with ``requires_grad`` are copied, averaged, swapped and saved.
"""

import weakref
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging as LightningEMA
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from typing_extensions import override

from callbacks.evaluation import check_counts
from pretzel.errors import UserError
from pretzel.files.weights import check_architecture


class _Trainable(nn.Module):
    """A flat view of a module's trainable parameters, without copying them."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        named = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
        self.names = [name for name, _ in named]
        self.values = nn.ParameterList([parameter for _, parameter in named])

    def named_values(self) -> dict[str, Tensor]:
        """Return the tensors under the names they have in the viewed module."""
        return dict(zip(self.names, self.values, strict=True))


class _TrainableAverage(AveragedModel):
    """The running average of a module's trainable parameters."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        super().__init__(_Trainable(module), multi_avg_fn=average)
        # AveragedModel deep-copies what it is given: the view holds trainable parameters only.
        self.live = weakref.ref(module)

    @property
    def averages(self) -> dict[str, Tensor]:
        """The averaged tensors under their names in the module."""
        assert isinstance(self.module, _Trainable)
        return self.module.named_values()

    def follow(self, module: nn.Module) -> _Trainable:
        """Return the live parameters, after moving the averages to the device of each."""
        view = _Trainable(module)
        if view.names != list(self.averages):
            raise UserError(
                "the set of trainable parameters must not change while EMAWeightAveraging runs, "
                f"but these changed: {sorted(set(view.names) ^ set(self.averages))[:5]}"
            )
        for average, current in zip(self.parameters(), view.parameters(), strict=True):
            if average.device != current.device:
                average.data = average.data.to(current.device)
        return view

    @override
    def update_parameters(self, model: nn.Module) -> None:
        super().update_parameters(self.follow(model))

    def swap(self, module: nn.Module) -> None:
        """Exchange current and averaged values in place, one tensor at a time."""
        view = self.follow(module)
        for average, current in zip(self.parameters(), view.parameters(), strict=True):
            kept = average.detach().clone()
            average.data.copy_(current.data)
            current.data.copy_(kept)


class EMAWeightAveraging(LightningEMA):
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

    def __init__(self, decay: float = 0.999, update_every_n_steps: int = 1) -> None:
        if not 0.0 <= decay < 1.0:
            raise UserError(f"EMAWeightAveraging: decay must lie in [0, 1), got {decay}")
        check_counts("EMAWeightAveraging", update_every_n_steps=update_every_n_steps)
        super().__init__(use_buffers=False, decay=decay, update_every_n_steps=update_every_n_steps)
        self.decay = decay
        self._average_model: _TrainableAverage | None = None
        self._module_is_averaged = False

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.save_weights_only:
                raise UserError(
                    "ModelCheckpoint: save_weights_only must be false with EMAWeightAveraging, "
                    "else the file would hold the weights that are not averaged"
                )
        if self._average_model is None:
            return
        if stage != "fit" or self._average_model.live() is not pl_module:
            # After training the module holds the average: what it is evaluated with from now on.
            self._average_model, self._module_is_averaged = None, False
        elif self._module_is_averaged:
            self._swap_models(pl_module)  # fit continues with the weights the optimizer knows

    def _start(self, pl_module: LightningModule) -> _TrainableAverage:
        # Later than setup, because a LightningModule may freeze parameters in its own setup.
        if self._average_model is None:
            self._average_model = _TrainableAverage(pl_module, self.decay)
        return self._average_model

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # The module is on its device now; later moves could happen under inference mode.
        self._start(pl_module).follow(pl_module)

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._average_model is not None and not self._module_is_averaged:
            self._swap_models(pl_module)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and self._module_is_averaged:
            self._swap_models(pl_module)

    @override
    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do nothing: the exchange wraps the epoch hooks, see :meth:`on_validation_start`."""

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do nothing: the exchange wraps the epoch hooks, see :meth:`on_validation_end`."""

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        if trainer.state.fn == TrainerFn.FITTING and self._module_is_averaged:
            self._swap_models(pl_module)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning copies here, and so loses the optimizer's weights from checkpoints saved later.
        self._swap_models(pl_module)

    @override
    def _swap_models(self, pl_module: LightningModule) -> None:
        assert self._average_model is not None
        self._average_model.swap(pl_module)
        self._module_is_averaged = not self._module_is_averaged

    @override
    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._average_model is None:
            return
        live = _Trainable(pl_module).named_values()
        averages = self._average_model.averages
        # After a swap the module holds the averages, and the average model the current weights
        averaged, current = (live, averages) if self._module_is_averaged else (averages, live)
        checkpoint["state_dict"] = checkpoint["state_dict"] | _detached(averaged)
        checkpoint["current_model_state"] = _detached(current)
        checkpoint["averaging_state"] = {"n_averaged": self._average_model.n_averaged.clone()}

    @override
    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            return  # the state_dict that Lightning has loaded is the average
        average = self._start(pl_module)
        live = _Trainable(pl_module).named_values()
        current = checkpoint.get("current_model_state")
        if current is None:
            rank_zero_info(
                "EMAWeightAveraging: the checkpoint has no average; it starts from its weights."
            )
            _load(average.averages, {n: p.detach() for n, p in live.items()})
            average.n_averaged.zero_()
            return
        _load(average.averages, checkpoint["state_dict"])
        _load(live, current)
        average.n_averaged.copy_(checkpoint["averaging_state"]["n_averaged"])


def _detached(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in tensors.items()}


@torch.no_grad()
def _load(targets: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> None:
    """Copy tensors by name.

    Raises:
        UserError: If a name is missing or a shape differs.
    """
    state = {name: source[name] for name in targets if name in source}
    check_architecture(targets, state, "the averages of the checkpoint")
    for name, tensor in targets.items():
        tensor.copy_(state[name])
