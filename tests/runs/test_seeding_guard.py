"""Parts that seed the global random states are refused before anything trains, by name."""

import random

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

from pretzel import rng
from pretzel.rng import StateWatch, global_states, seed_global, set_global_states
from pretzel.runs.cli import RunCLI
from pretzel.runs.initial_weights import built_by_name
from pretzel.runs.meta_device import built_without_memory
from pretzel.runs.seeding_guard import SeedingGuard, built_without_seeding
from pretzel.runs.step_seeds import SeededSteps

HERE = __name__


@pytest.fixture(autouse=True)
def _leave_the_states_alone(monkeypatch):
    monkeypatch.setattr(rng, "MOST_DRAWN", 2**18)  # as fast as these parts draw little
    before = global_states()
    seed_global("a state that no part seeds")  # a test before may have left that of seed 0
    yield
    set_global_states(before)


def seed_torch():
    torch.manual_seed(0)


SEEDING = {
    "torch": seed_torch,
    "torch's generator": lambda: torch.default_generator.manual_seed(0),
    "a state of torch": lambda: torch.set_rng_state(torch.Generator().manual_seed(3).get_state()),
    "by the clock": torch.seed,
    "numpy": lambda: np.random.seed(0),
    "python": lambda: random.seed(0),
}


def draw():
    torch.rand(3)
    np.random.standard_normal(2_000)
    random.gauss(0, 1)


@pytest.mark.parametrize("act", SEEDING.values(), ids=SEEDING)
def test_seeding_is_told_from_drawing_and_from_what_is_restored(act):
    seed_global("before")
    watch = StateWatch()
    draw()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
    assert watch.reset() == []
    act()
    draw()
    assert len(watch.reset()) == 1


class Part(nn.Module):
    """Draws its weights; seeds, if so told, when it is built or called."""

    def __init__(self, built="", called="", in_training=True):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)  # a table of its own, which is right
            self.register_buffer("table", torch.rand(3))
        if built:
            SEEDING[built]()
        self.weight = nn.Parameter(torch.randn(32) + float(np.random.randn()))
        self.called, self.in_training = called, in_training

    def forward(self, x):
        if self.called and self.training is self.in_training:
            SEEDING[self.called]()
        return (x * self.weight).sum() + torch.rand(())


class Module(LightningModule):
    def __init__(self, built="", called="", in_training=True):
        super().__init__()
        self.part = nn.Sequential(Part(built, called, in_training))

    def training_step(self, batch, batch_idx):
        return self.part(batch)

    def validation_step(self, batch, batch_idx):
        self.part(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("state", [name for name in SEEDING if name != "python"])
def test_building_it_is_refused_with_class_and_line(state):
    sentence = r"Part \(.*test_seeding_guard.py:\d+\) seeds the global random state of (\w+) when "
    with pytest.raises(ValueError, match=sentence + "it is built, so that all seeds") as caught:
        built_without_seeding(lambda: Part(state))
    assert "\n" not in str(caught.value)
    assert isinstance(built_without_seeding(Part), Part)


def test_initial_weights_by_name_and_plans_refuse_it_too():
    for build in (lambda make: built_by_name(make, 0), built_without_memory):
        with pytest.raises(ValueError, match=r"Part \(.*\) seeds the global random state of torch"):
            build(lambda: Module("torch"))
        assert isinstance(build(Module), Module)


def fit(module, tmp_path):
    trainer = Trainer(
        max_steps=2, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
        callbacks=[SeededSteps(0), SeedingGuard()],
    )  # fmt: skip
    before = {name: p.clone() for name, p in module.named_parameters()}
    batches = DataLoader(torch.ones(2, 32), batch_size=None)
    try:
        trainer.fit(module, batches, batches)
    finally:
        moved = [name for name, p in module.named_parameters() if not p.equal(before[name])]
    return trainer, moved


@pytest.mark.parametrize("state", ["torch", "numpy", "python"])
@pytest.mark.parametrize("in_training", [True, False])
def test_calling_it_is_refused_before_a_step(state, in_training, tmp_path):
    module = Module(called=state, in_training=in_training)
    with pytest.raises(ValueError, match=r"Part .* when it is called"):
        fit(module, tmp_path)
    assert all(p.grad is None or p.grad.any() for p in module.parameters())
    assert module.trainer.global_step == 0


def test_a_part_that_draws_trains(tmp_path):
    trainer, moved = fit(Module(), tmp_path)
    assert trainer.global_step == 2
    assert moved == ["part.0.weight"]


@pytest.mark.parametrize("seed", [1, False])
def test_pretzel_fit_refuses_it_and_leaves_no_folder(seed, tmp_path):
    values = {
        "seed_everything": seed,
        "model": {"class_path": f"{HERE}.Module", "init_args": {"built": "torch"}},
        "data": {"class_path": "lightning.pytorch.demos.boring_classes.BoringDataModule"},
        "trainer": {
            "accelerator": "cpu",
            "max_steps": 1,
            "limit_val_batches": 0,
            "default_root_dir": str(tmp_path),
        },
    }
    with pytest.raises(ValueError, match=r"Part \(.* seeds the global random state of torch"):
        RunCLI({"subcommand": "fit", "fit": values})
    values["model"]["init_args"] = {"called": "torch"}
    seed_global("not by what the part seeds with")
    with pytest.raises(ValueError, match=r"Part \(.* when it is called"):
        RunCLI({"subcommand": "fit", "fit": values})
    assert list(tmp_path.iterdir()) == []
