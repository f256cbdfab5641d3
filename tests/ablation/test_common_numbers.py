"""Arms that share a seed share batches, noise, caption drops, dropout and initial weights."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from test_resume_pretzel import SMALL

from pretzel.rng import global_states, set_global_states
from pretzel.runs.cli import ParseOnlyCLI, RunCLI
from pretzel.runs.config.overlay import Config, fold, read
from pretzel.runs.step_seeds import SeededSteps
from pretzel.training.module import PretzelModule

ROOT = Path(__file__).parents[2]
BASE = [read(ROOT / "ablations" / "base" / "easy_vqa.yaml"), Config(values=SMALL)]
STEPS = 3


def split(shallow, deep):
    part = {"class_path": "pretzel.flow.ExplicitSplit", "init_args": {}}
    return {"split": part | {"init_args": {"shallow": shallow, "deep": deep}}}


ARMS = {
    "base": {},
    "deep": split([1, 1], 3),
    "shallow": split([2, 1], 1),
    "prefix": {"interleaving": {"class_path": "pretzel.interleave.TextPrefix"}},
}


class Built(RunCLI):
    """Builds what the command line builds, and runs nothing."""

    def _run_subcommand(self, subcommand) -> None:
        pass


@pytest.fixture(autouse=True)
def _leave_the_states_alone():
    before = global_states()
    yield
    set_global_states(before)


@pytest.fixture(scope="module")
def cli():
    return ParseOnlyCLI()


def build(cli, arm: str, seed: int, by_name=True):
    """Build an arm's module and data."""
    own = {"model": {"init_args": {"pretzel": {"init_args": ARMS[arm]}}}}
    own = own if ARMS[arm] else {}  # an empty mapping would clear what is there
    values = fold([*BASE, Config(values=own)]).values
    values["seed_everything"] = seed
    values["model"]["init_args"]["seed"] = values["data"]["init_args"]["seed"] = seed
    values["data"]["init_args"] |= {"batch_size": 4, "steps_per_epoch": STEPS}
    if not by_name:
        seed_everything(seed, verbose=False)
        return cli.build_model("fit", cli.parse("fit", Config(values=values))), None
    values["trainer"] = {"accelerator": "cpu", "logger": False}
    cell = Built({"subcommand": "fit", "fit": values})
    return cell.model, cell.datamodule


@pytest.fixture(scope="module")
def seen(cli, tmp_path_factory):
    """What each arm is trained on: documents with their drops, images, noise, and a dropout."""
    found = {}
    step = PretzelModule.training_step

    def training_step(self, batch, batch_idx):
        count = self.trainer.fit_loop.epoch_loop.total_batch_idx
        noise = self.pretzel.noise(len(batch.images), self.seed, "noise", self.global_rank, count)
        dropout = torch.rand(5)
        found[self.arm].append((batch.documents, batch.images, noise, dropout))
        return step(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PretzelModule, "training_step", training_step)
        for arm, seed in [*((arm, 0) for arm in ARMS), ("base", 1)]:
            module, data = build(cli, arm, seed)
            module.arm = arm, seed
            found[module.arm] = []
            trainer = Trainer(
                max_steps=STEPS, accelerator="cpu", logger=False, enable_checkpointing=False,
                enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
                default_root_dir=tmp_path_factory.mktemp("fit"), callbacks=[SeededSteps(seed)],
            )  # fmt: skip
            trainer.fit(module, data)
    return found


@pytest.mark.parametrize("arm", ["deep", "shallow", "prefix"])
def test_arms_of_a_seed_are_trained_on_the_same(seen, arm):
    for one, other in zip(seen["base", 0], seen[arm, 0], strict=True):
        assert one[0] == other[0]  # text, order, and which captions are dropped
        assert all(torch.equal(a, b) for a, b in zip(one[1:], other[1:], strict=True))


def test_another_seed_is_trained_on_something_else(seen):
    for one, other in zip(seen["base", 0], seen["base", 1], strict=True):
        assert one[0] != other[0]
        assert not any(torch.equal(a, b) for a, b in zip(one[1:], other[1:], strict=True))


def drawn(module) -> dict[str, torch.Tensor]:
    """Return the weights that start at random."""
    named = module.named_parameters()
    return {n: p for n, p in named if p.requires_grad and p.numel() > 1 and p.std() > 0}


@pytest.mark.parametrize("arm", ["deep", "shallow", "prefix"])
def test_arms_of_a_seed_start_from_the_same_weights(cli, arm):
    base, other = (drawn(build(cli, name, 0)[0]) for name in ("base", arm))
    common = [n for n in base if n in other and base[n].shape == other[n].shape]
    assert len(common) > 20
    for name in common:
        # what a branch adds starts the smaller the deeper the stream is
        scale = base[name].std() / other[name].std()
        torch.testing.assert_close(base[name], scale * other[name], msg=name)
        if not name.endswith(("attention.out.weight", "mlp.down.weight")):
            assert torch.equal(base[name], other[name]), name


def test_another_seed_starts_from_other_weights_around_the_same_frozen_parts(cli):
    one, other = (build(cli, "base", seed)[0] for seed in (0, 1))
    for name, value in drawn(one).items():
        assert not torch.equal(value, other.get_parameter(name)), name
    assert one.frozen_identities() == other.frozen_identities()


def test_without_names_they_start_from_others(cli):
    # why initial weights by name are there; this is how plain construction behaves
    base, other = (drawn(build(cli, name, 0, by_name=False)[0]) for name in ("base", "shallow"))
    common = [n for n in base if n in other and base[n].shape == other[n].shape]
    assert sum(torch.equal(base[n], other[n]) for n in common) < len(common) / 2


def test_without_a_seed_nothing_is_seeded():
    values = fold(
        [*BASE, Config(values={"trainer": {"accelerator": "cpu", "logger": False}})]
    ).values
    values["seed_everything"] = False
    one, other = (Built({"subcommand": "fit", "fit": values}) for _ in range(2))
    assert not any(isinstance(c, SeededSteps) for c in one.trainer.callbacks)
    weights = drawn(one.model)
    assert any(not torch.equal(weights[n], p) for n, p in drawn(other.model).items())


class Draws(LightningModule):
    """Draws as often as it is told in each training and validation step."""

    def __init__(self, count: int) -> None:
        super().__init__()
        torch.rand(count)
        self.count, self.first = count, []
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_idx):
        self.first.append([torch.rand(2).tolist(), random.random(), float(np.random.rand())])
        torch.rand(self.count)
        return self.weight

    def validation_step(self, batch, batch_idx) -> None:
        torch.rand(self.count)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def first_draws(folder, count, seed):
    module, data = Draws(count), torch.utils.data.DataLoader(torch.zeros(4))
    trainer = Trainer(
        max_epochs=1, val_check_interval=2, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, callbacks=[SeededSteps(seed)], log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(module, data, data)
    return module.first


def test_what_a_step_draws_depends_on_seed_and_step_alone(tmp_path):
    one = first_draws(tmp_path, 1, 0)
    assert first_draws(tmp_path, 7, 0) == one
    other = first_draws(tmp_path, 1, 1)
    assert len({str(drawn) for drawn in one + other}) == 8
