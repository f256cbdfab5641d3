"""Sampling where it happens: inside Trainer.validate, under Lightning's inference mode."""

import json
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tiny import caption_batch, perturb, tiny_module
from torch.utils.data import DataLoader

from pretzel.generation.sampling_record import described
from pretzel.sampling.denoisers import NoDenoiser, ScoreDenoiser
from pretzel.sampling.guidance import AttentionTemperature, GaussianMixing
from pretzel.sampling.samplers import GaussSeidelJacobi, Jacobi, SelectiveJacobi


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
    assert record == module.sampling_record
    assert record["sampler"]["class_path"] == "pretzel.sampling.samplers.GaussSeidelJacobi"
    assert record["guidance"]["init_args"] == {"weight": 1.0, "annealed": False}
    assert set(record["state"]["schedule"]) == {"0", "1", "2"}  # deep, two shallow blocks
    assert all(count > 0 for count in record["evaluations_per_block"])
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    later = tiny_module(sampler=GaussSeidelJacobi())
    later.on_load_checkpoint(checkpoint)
    assert later.sampler.state() == module.sampler.state() == record["state"]
    module.export(tmp_path / "x.safetensors")
    exported = tiny_module(sampler=GaussSeidelJacobi(), weights=tmp_path / "x.safetensors")
    assert exported.sampler.state() == module.sampler.state()


def test_parts_are_described_as_a_configuration_names_them():
    guidance = AttentionTemperature(GaussianMixing(2.0, annealed=True), temperature=0.5)
    assert described(guidance) == {
        "class_path": "pretzel.sampling.guidance.AttentionTemperature",
        "init_args": {
            "guidance": {
                "class_path": "pretzel.sampling.guidance.GaussianMixing",
                "init_args": {"weight": 2.0, "annealed": True},
            },
            "temperature": 0.5,
            "keeps_context": False,
        },
    }
    assert described(NoDenoiser()) == {"class_path": "pretzel.sampling.denoisers.NoDenoiser"}
    selective = described(SelectiveJacobi(Jacobi(block_size=4), num_sequential=2))
    assert selective["init_args"]["jacobi"]["init_args"]["block_size"] == 4


class Ranked(Callback):
    """Ranks draw unlike batches, and rank 1 draws none at first."""

    def on_predict_start(self, trainer, pl_module):
        rank, folder = trainer.global_rank, Path(trainer.default_root_dir)
        if rank == 0:
            pl_module.sample(["a red circle", "a shape"], stream_key=("first",))
        trainer.strategy.barrier()
        pl_module.sample(["a teal triangle"] * (3 + rank), stream_key=("second", rank))
        (folder / f"rank{rank}.json").write_text(json.dumps(pl_module.sampler.state()))


def test_two_ranks_find_one_schedule_without_waiting_for_each_other(tmp_path):
    def predict(devices):
        folder = tmp_path / str(devices)
        folder.mkdir()
        sampler = GaussSeidelJacobi(tolerance=1e-12, overhead=1.0)
        module = tiny_module(sampler=sampler)
        perturb(module, scale=0.3)
        trainer = Trainer(
            accelerator="cpu", devices=devices, strategy="ddp_fork" if devices > 1 else "auto",
            callbacks=[Ranked()], logger=False, enable_progress_bar=False,
            enable_model_summary=False, enable_checkpointing=False, default_root_dir=folder,
        )  # fmt: skip
        items = [caption_batch("a red circle")] * devices
        trainer.predict(module, DataLoader(items, batch_size=None))
        return [json.loads(path.read_text()) for path in sorted(folder.glob("rank*.json"))]

    (single,), (first, second) = predict(1), predict(2)
    assert set(single["schedule"]) == {"0", "1", "2"}
    assert first == second == single
