"""The exact loops train as Lightning's do, and continue from any checkpoint of a plain fit."""

import sys
from pathlib import Path

import pytest
import torch
from killing import HERE
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from callbacks import EMAWeightAveraging
from pretzel.rng import global_states, set_global_states
from pretzel.runs.exact_resume import make_exact
from pretzel.runs.step_seeds import SeededSteps

STEPS = 33
pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")


@pytest.fixture(autouse=True)
def _plug_in(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(HERE), *sys.path])
    before = global_states()
    yield
    set_global_states(before)


def fit(folder: Path, *callbacks, exact=True, ckpt_path=None, **settings):
    """Train; return the trainer, and the module's weights and logged values."""
    from noisy import Counts, Noisy, OrderedData

    seed_everything(1, verbose=False)
    arguments = {
        "max_steps": STEPS, "val_check_interval": 5, "accelerator": "cpu", "logger": False,
        "enable_checkpointing": bool(callbacks), "enable_progress_bar": False,
        "enable_model_summary": False, "default_root_dir": folder,
    }  # fmt: skip
    ema = EMAWeightAveraging(0.7)
    # seeded anew at each step: the shape checks of the tests draw from Python's random state
    ours = [SeededSteps(1), ema, Counts()]
    trainer = Trainer(callbacks=[*ours, *callbacks], **(arguments | settings))
    if exact:
        make_exact(trainer)
    module = Noisy()
    trainer.fit(module, OrderedData(), ckpt_path=ckpt_path, weights_only=True)
    values = {name: float(value) for name, value in trainer.callback_metrics.items()}
    values["logged"] = trainer.fit_loop.epoch_loop._batches_that_stepped
    return trainer, {k: v.clone() for k, v in module.state_dict().items()}, values


def assert_same(one, other):
    for name, value in one[1].items():
        assert torch.equal(value, other[1][name]), name
    assert one[2] == other[2]


@pytest.mark.parametrize("accumulate", [1, 3])
def test_uninterrupted_they_are_lightnings(tmp_path, accumulate):
    arguments = {"accumulate_grad_batches": accumulate, "max_steps": 12}
    assert_same(fit(tmp_path, exact=False, **arguments), fit(tmp_path, **arguments))


WHERE = {
    "a step": ({"every_n_train_steps": 7}, {}),
    "a step with a validation": ({"every_n_train_steps": 5}, {}),
    "the last step of an epoch": ({"every_n_train_steps": 10}, {}),
    "the last step of all": ({"every_n_train_steps": STEPS}, {}),
    "a validation": ({"every_n_epochs": 1}, {"val_check_interval": 4}),
}


@pytest.mark.parametrize("where", WHERE)
def test_continues_from_a_checkpoint_of_lightnings_at(tmp_path, where):
    when, settings = WHERE[where]
    saver = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, **when)
    whole = fit(tmp_path, saver, **settings)
    paths = list(tmp_path.glob("*.ckpt"))
    assert paths
    for path in paths:
        assert_same(whole, fit(tmp_path / "other", ckpt_path=path, **settings))
