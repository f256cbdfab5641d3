"""A fit that is stopped and resumed sees the batches of the uninterrupted one."""

import multiprocessing

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from datamodules import Captions, Mixture, Questions, Shards, WebDatasetDataModule
from datamodules.streams.loader import TrainLoader
from pretzel.runs.exact_resume import make_exact

STEPS = 5


class Recorder(LightningModule):
    """Trains one number and remembers every batch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch.documents)
        return self.weight * batch.images.mean()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def datamodule(pattern, num_workers=0, **changes):
    recipe = Mixture([Captions(0.5), Questions()], [1.0, 1.0])
    source = Shards(pattern, val=pattern)
    arguments = {"image_size": 16, "batch_size": 2, "steps_per_epoch": STEPS, "num_val_samples": 2}
    arguments |= {"shuffle_buffer": 8, "num_workers": num_workers}
    return WebDatasetDataModule(source, recipe, **(arguments | changes))


def fit(
    folder, data, *, max_epochs=3, ckpt_path=None, callbacks=(), exact=False, **trainer_arguments
):
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=max_epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Save(folder), *callbacks],
        default_root_dir=folder,
        num_sanity_val_steps=0,
        **trainer_arguments,
    )
    if exact:
        make_exact(trainer)
    torch.manual_seed(0)
    model = Recorder()
    trainer.fit(model, data, ckpt_path=ckpt_path, weights_only=True)
    return model.seen


class Save(Callback):
    """Saves a checkpoint where ModelCheckpoint does, without its memory of folders."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        trainer.save_checkpoint(self.folder / f"batch={len(pl_module.seen)}.ckpt")

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.save_checkpoint(self.folder / f"epoch={trainer.current_epoch}.ckpt")


def test_resumed_fit_continues_with_the_same_batches(shard_pattern, tmp_path):
    whole = fit(tmp_path, datamodule(shard_pattern, num_workers=2))
    assert len(whole) == 3 * STEPS
    assert len(set(whole)) == len(whole)
    # In the middle of an epoch, at its last batch, and right after the first of the next one.
    for batches, num_workers in ((3, 0), (STEPS, 0), (STEPS + 1, 1)):
        path = tmp_path / f"batch={batches}.ckpt"
        resumed = fit(tmp_path / "b", datamodule(shard_pattern, num_workers), ckpt_path=path)
        assert resumed == whole[batches:], batches


class Dice(Callback):
    """Draws a number from the global stream in every step, as dropout does."""

    def __init__(self):
        self.numbers = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.numbers.append(torch.rand(()).item())


def test_loading_draws_nothing_from_the_random_numbers_of_training(shard_pattern, tmp_path):
    dice = [Dice() for _ in range(3)]
    arguments = {"max_epochs": 2, "exact": True}
    fit(tmp_path, datamodule(shard_pattern), callbacks=dice[:1], limit_val_batches=0, **arguments)
    fit(tmp_path, datamodule(shard_pattern, num_workers=2), callbacks=dice[1:2], **arguments)
    assert dice[1].numbers == dice[0].numbers
    path = tmp_path / "batch=3.ckpt"
    fit(tmp_path / "b", datamodule(shard_pattern), ckpt_path=path, callbacks=dice[2:], **arguments)
    assert dice[2].numbers == dice[0].numbers[3:]


def test_workers_are_opened_once_and_end_with_a_run_that_fails(
    shard_pattern, tmp_path, monkeypatch
):
    positions = []
    opened = TrainLoader._opened

    def counted(self, position):
        positions.append(position)
        return opened(self, position)

    class Fail(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 2:
                assert multiprocessing.active_children()
                raise ArithmeticError

    monkeypatch.setattr(TrainLoader, "_opened", counted)
    data = datamodule(shard_pattern, num_workers=2)
    with pytest.raises(ArithmeticError):
        fit(tmp_path, data, callbacks=[Fail()])
    assert positions == [0]
    assert not multiprocessing.active_children()


class Told(Callback):
    """Writes down the keys that this rank has seen."""

    def on_train_end(self, trainer, pl_module):
        keys = [[document.key for document in batch] for batch in pl_module.seen]
        torch.save(keys, f"{trainer.default_root_dir}/rank{trainer.global_rank}.pt")


def test_two_processes_see_the_batches_of_one_which_continues_theirs(shard_pattern, tmp_path):
    whole = fit(tmp_path, datamodule(shard_pattern), max_epochs=1)
    two = {"devices": 2, "strategy": "ddp_fork", "limit_val_batches": 0}
    half = datamodule(shard_pattern, batch_size=1)
    fit(tmp_path / "two", half, max_epochs=1, callbacks=[Told()], **two)
    ranks = [torch.load(tmp_path / "two" / f"rank{rank}.pt") for rank in range(2)]
    together = [[*one, *other] for one, other in zip(*ranks, strict=True)]
    assert together == [[document.key for document in batch] for batch in whole]
    path = tmp_path / "two" / "batch=3.ckpt"
    assert len(torch.load(path)["WebDatasetDataModule"]["lanes"]) == 2
    assert fit(tmp_path / "b", datamodule(shard_pattern), max_epochs=1, ckpt_path=path) == whole[3:]


def test_fit_resumed_from_the_end_of_an_epoch_continues(shard_pattern, tmp_path):
    whole = fit(tmp_path, datamodule(shard_pattern))
    first = fit(tmp_path / "b", datamodule(shard_pattern), max_epochs=2)
    assert first == whole[: 2 * STEPS]
    for end in tmp_path / "b" / "epoch=1.ckpt", tmp_path / "b" / "batch=10.ckpt":
        resumed = fit(tmp_path / "c", datamodule(shard_pattern), ckpt_path=end)
        assert resumed == whole[2 * STEPS :]


def test_accumulated_gradients_do_not_disturb_the_count(shard_pattern, tmp_path):
    arguments = {"accumulate_grad_batches": 2, "limit_train_batches": 4}
    whole = fit(tmp_path, datamodule(shard_pattern), **arguments)
    assert len(whole) == 12
    path = tmp_path / "batch=6.ckpt"
    resumed = fit(tmp_path / "b", datamodule(shard_pattern), ckpt_path=path, **arguments)
    assert resumed == whole[6:]


def test_limited_epochs_differ_from_one_another(shard_pattern, tmp_path):
    seen = fit(tmp_path, datamodule(shard_pattern), limit_train_batches=2)
    assert len(seen) == len(set(seen)) == 6


def test_overfitting_repeats_its_batches(shard_pattern, tmp_path):
    seen = fit(tmp_path, datamodule(shard_pattern), overfit_batches=2)
    assert seen[0:2] == seen[2:4] == seen[4:6]


def test_resuming_with_another_order_warns_what_changed(shard_pattern, tmp_path):
    fit(tmp_path, datamodule(shard_pattern), max_epochs=1)
    path = tmp_path / "batch=3.ckpt"
    with pytest.warns(UserWarning, match="batch_size 2 -> 3"):
        fit(tmp_path / "b", datamodule(shard_pattern, batch_size=3), ckpt_path=path)
