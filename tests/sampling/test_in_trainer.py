"""Sampling where it happens: inside Trainer.validate, under Lightning's inference mode."""

import json

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tiny import caption_batch, tiny_module
from torch.utils.data import DataLoader

from pretzel.sampling.denoise import ScoreDenoiser
from pretzel.sampling.samplers import GaussSeidelJacobi


class Draws(Callback):
    def on_validation_epoch_end(self, trainer, pl_module):
        assert torch.is_inference_mode_enabled()
        self.images = pl_module.sample(["a red circle", "a shape"], stream_key=("test",))


@pytest.fixture
def validated(tmp_path):
    module = tiny_module(sampler=GaussSeidelJacobi(num_samples=2), denoiser=ScoreDenoiser())
    draws = Draws()
    trainer = Trainer(
        accelerator="cpu", logger=TensorBoardLogger(tmp_path, name="", version=""),
        callbacks=[draws], enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, default_root_dir=tmp_path,
    )  # fmt: skip
    batches = DataLoader([caption_batch("a red circle")], batch_size=None)
    trainer.validate(module, batches, verbose=False)
    return module, trainer, draws


def test_the_score_denoiser_and_any_sampler_run_inside_validation(validated):
    _, _, draws = validated
    assert draws.images.shape == (2, 3, 8, 8)
    assert draws.images.isfinite().all()


def test_the_schedule_that_was_found_is_saved_with_the_run(validated, tmp_path):
    module, trainer, _ = validated
    record = json.loads((tmp_path / "sampling.json").read_text())
    assert record["sampler"] == "GaussSeidelJacobi"
    assert set(record["state"]["schedule"]) == {"0", "1", "2"}  # deep, two shallow blocks
    assert all(count > 0 for count in record["evaluations_per_block"])
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    later = tiny_module(sampler=GaussSeidelJacobi())
    later.on_load_checkpoint(checkpoint)
    assert later.sampler.state() == module.sampler.state() == record["state"]
