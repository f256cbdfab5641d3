"""Averaging touches trainable weights only, survives resume, and never leaks into raw weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader
from world import make_trainer

from callbacks import EMAWeightAveraging
from pretzel.errors import UserError

DECAY = 0.7
STEPS = 6


class Half(LightningModule):
    """One frozen layer, absent from checkpoints, and one that trains."""

    def __init__(self, freeze_late: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.frozen = nn.Linear(4, 4)
        self.trained = nn.Linear(4, 1)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)
        self.freeze_late = freeze_late
        if not freeze_late:
            self.frozen.requires_grad_(False)

    def setup(self, stage: str) -> None:
        self.frozen.requires_grad_(False)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return (self.trained(self.frozen(batch)) - 1).square().mean()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Leave everything to the callbacks."""

    def test_step(self, batch: Tensor, batch_idx: int) -> None:
        """Leave everything to the callbacks."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam([p for p in self.parameters() if p.requires_grad], lr=0.1)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        state = super().state_dict(*args, **kwargs)
        return {n: t for n, t in state.items() if not n.startswith("frozen")}

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        assert not any(name.startswith("frozen") for name in state_dict)
        return super().load_state_dict(state_dict, strict=False, assign=assign)


class Recorder(Callback):
    """Notes the trained weight at each step and in the hooks of a validation."""

    def __init__(self) -> None:
        self.raw: list[Tensor] = []
        self.validated: dict[str, Tensor] = {}

    def on_train_batch_end(self, trainer: Trainer, pl_module: Half, *args: Any) -> None:
        self.raw.append(pl_module.trained.weight.detach().clone())

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: Half) -> None:
        self.validated["epoch_start"] = pl_module.trained.weight.detach().clone()

    def on_validation_batch_end(self, trainer: Trainer, pl_module: Half, *args: Any) -> None:
        self.validated["batch_end"] = pl_module.trained.weight.detach().clone()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Half) -> None:
        self.validated["epoch_end"] = pl_module.trained.weight.detach().clone()


class Equal(DataLoader):
    """Equal rows: an interrupted epoch continues with the same batch wherever it stopped."""

    def __init__(self) -> None:
        super().__init__(torch.randn(1, 4, generator=torch.Generator().manual_seed(1)).expand(4, 4))

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        assert state == {}


def data() -> DataLoader:
    return Equal()


def fit(
    folder: Path,
    module: Half,
    callbacks: list[Callback],
    steps: int = STEPS,
    checkpoint: Path | None = None,
    **settings: Any,
) -> Trainer:
    settings = {"max_epochs": -1, "limit_val_batches": 1, "val_check_interval": 1} | settings
    trainer = make_trainer(folder, callbacks, max_steps=steps, **settings)
    trainer.fit(module, data(), data(), ckpt_path=checkpoint, weights_only=True)
    return trainer


def by_hand(raw: list[Tensor]) -> Tensor:
    average = raw[0]
    for weight in raw[1:]:
        average = DECAY * average + (1 - DECAY) * weight
    return average


@pytest.mark.parametrize("ema_first", [True, False])
def test_all_hooks_of_a_validation_see_the_average_and_training_never_does(
    tmp_path: Path, ema_first: bool
) -> None:
    recorder, ema = Recorder(), EMAWeightAveraging(DECAY)
    fit(tmp_path, Half(), [ema, recorder] if ema_first else [recorder, ema])
    plain = Recorder()
    fit(tmp_path, Half(), [plain])

    assert all(torch.equal(a, b) for a, b in zip(recorder.raw, plain.raw, strict=True))
    expected = by_hand(recorder.raw)
    assert not torch.allclose(expected, recorder.raw[-1], rtol=1e-2)
    assert set(recorder.validated) == {"epoch_start", "batch_end", "epoch_end"}
    for seen in recorder.validated.values():
        torch.testing.assert_close(seen, expected)


def test_only_trainable_parameters_are_copied_even_if_frozen_in_setup(tmp_path: Path) -> None:
    ema, module = EMAWeightAveraging(DECAY), Half(freeze_late=True)
    frozen = {n: p.clone() for n, p in module.frozen.named_parameters()}
    fit(tmp_path, module, [ema])
    assert [average.shape for average in ema._averages.values()] == [(1, 4), (1,)]
    assert all(torch.equal(p, frozen[n]) for n, p in module.frozen.named_parameters())


def test_checkpoint_holds_average_and_current_weights_apart(tmp_path: Path) -> None:
    recorder, module = Recorder(), Half()
    trainer = fit(tmp_path, module, [EMAWeightAveraging(DECAY), recorder])
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    saved = torch.load(tmp_path / "end.ckpt", weights_only=True)
    names = {"trained.weight", "trained.bias"}
    assert set(saved["state_dict"]) == set(saved["current_model_state"]) == names
    torch.testing.assert_close(saved["state_dict"]["trained.weight"], by_hand(recorder.raw))
    assert torch.equal(saved["current_model_state"]["trained.weight"], recorder.raw[-1])
    assert torch.equal(module.trained.weight, saved["state_dict"]["trained.weight"])


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.parametrize("saved", ["after training", "on the way"])
def test_resume_equals_the_uninterrupted_run_bit_for_bit(tmp_path: Path, saved: str) -> None:
    whole = fit(tmp_path, Half(), [EMAWeightAveraging(DECAY)])
    whole.save_checkpoint(tmp_path / "whole.ckpt")
    # After training the module holds the average, and last.ckpt is written then.
    stop, every = (2, STEPS) if saved == "after training" else (3, 2)
    saver = ModelCheckpoint(tmp_path / "saved", save_last=True, every_n_train_steps=every)
    fit(tmp_path, Half(), [EMAWeightAveraging(DECAY), saver], stop, enable_checkpointing=True)
    resumed = fit(
        tmp_path, Half(), [EMAWeightAveraging(DECAY)], checkpoint=tmp_path / "saved" / "last.ckpt"
    )
    resumed.save_checkpoint(tmp_path / "resumed.ckpt")

    start = torch.load(tmp_path / "saved" / "last.ckpt", weights_only=True)
    assert start["global_step"] == 2
    a, b = (torch.load(tmp_path / f"{x}.ckpt", weights_only=True) for x in ("whole", "resumed"))
    assert a["global_step"] == b["global_step"] == STEPS
    for part in ("state_dict", "current_model_state", "averaging_state"):
        assert a[part].keys() == b[part].keys()
        assert all(torch.equal(a[part][name], b[part][name]) for name in a[part]), part


class Broken(Callback):
    """Fails in the second validation."""

    def __init__(self) -> None:
        self.seen = 0

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seen += 1
        if self.seen == 2:
            # what a crash handler, or a signal, may do in the middle of a validation
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "inside.ckpt")
            raise RuntimeError("broken metric")


def test_exception_in_validation_leaves_current_weights(tmp_path: Path) -> None:
    recorder, module = Recorder(), Half()
    saver = ModelCheckpoint(tmp_path / "crash", filename="crash", save_on_exception=True)
    callbacks = [EMAWeightAveraging(DECAY), recorder, Broken(), saver]
    with pytest.raises(RuntimeError, match="broken metric"):
        fit(tmp_path, module, callbacks, enable_checkpointing=True)
    assert torch.equal(module.trained.weight, recorder.raw[-1])
    for path in (tmp_path / "inside.ckpt", tmp_path / "crash" / "crash.ckpt"):
        saved = torch.load(path, weights_only=True)
        torch.testing.assert_close(saved["state_dict"]["trained.weight"], by_hand(recorder.raw))
        assert torch.equal(saved["current_model_state"]["trained.weight"], recorder.raw[-1])


def test_testing_after_training_and_from_a_checkpoint_uses_the_average(tmp_path: Path) -> None:
    recorder, module = Recorder(), Half()
    trainer = fit(tmp_path, module, [EMAWeightAveraging(DECAY), recorder])
    expected = by_hand(recorder.raw)
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    trainer.validate(module, data(), verbose=False)
    torch.testing.assert_close(recorder.validated["epoch_end"], expected)
    torch.testing.assert_close(module.trained.weight.detach(), expected)

    fresh = Half()
    tester = make_trainer(tmp_path, [EMAWeightAveraging(DECAY)])
    tester.test(fresh, data(), ckpt_path=tmp_path / "end.ckpt", verbose=False, weights_only=True)
    torch.testing.assert_close(fresh.trained.weight.detach(), expected)


def test_starts_from_a_checkpoint_without_average(tmp_path: Path) -> None:
    plain = fit(tmp_path, Half(), [], 2)
    plain.save_checkpoint(tmp_path / "plain.ckpt")
    recorder, module = Recorder(), Half()
    fit(
        tmp_path,
        module,
        [EMAWeightAveraging(DECAY), recorder],
        checkpoint=tmp_path / "plain.ckpt",
    )
    assert len(recorder.raw) == STEPS - 2
    torch.testing.assert_close(module.trained.weight.detach(), by_hand(recorder.raw))


def test_every_n_steps_averages_every_nth_weight(tmp_path: Path) -> None:
    recorder, module = Recorder(), Half()
    fit(tmp_path, module, [EMAWeightAveraging(DECAY, update_every_n_steps=2), recorder])
    torch.testing.assert_close(module.trained.weight.detach(), by_hand(recorder.raw[::2]))


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"decay must lie in \[0, 1\), got 1.0"):
        EMAWeightAveraging(1.0)
    with pytest.raises(UserError, match="update_every_n_steps must be at least 1, got 0"):
        EMAWeightAveraging(update_every_n_steps=0)
    saver = ModelCheckpoint(tmp_path, save_weights_only=True)
    with pytest.raises(UserError, match="save_weights_only must be false"):
        fit(tmp_path, Half(), [EMAWeightAveraging(), saver], enable_checkpointing=True)
