"""Weights that ModelParallelStrategy deals out train, sample, are saved and resumed as whole."""

from pathlib import Path

import pytest
import torch
from ddp_step import uneven
from fork_server import fork
from fsdp_step import REFUSED, make_module, run_rank, train
from lightning.fabric.plugins.environments.lightning import find_free_network_port
from tiny import joined

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return what one process has written, and two, of which one has a batch without images."""
    folder = tmp_path_factory.mktemp("fsdp")
    images = train(make_module(), [joined(*uneven())], folder / "one")
    torch.save(images, folder / "images.pt")
    port = find_free_network_port()
    ranks = [fork(run_rank, rank, port, str(folder)) for rank in range(2)]
    for rank in ranks:
        rank.join(240)
        assert rank.exitcode == 0
    return folder


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("name", ["dealt", "resumed"])
def test_two_processes_that_share_the_weights_train_those_of_one(folder, name):
    one, two = (load(folder / run / "step=2.ckpt") for run in ("one", name))
    for key in ("state_dict", "current_model_state"):
        assert one[key].keys() == two[key].keys()
        for weight, value in one[key].items():
            torch.testing.assert_close(two[key][weight], value, rtol=0, atol=1e-6, msg=weight)


def test_each_has_a_half_of_the_weights_and_generates_its_own_images(folder):
    expected, ranks = load(folder / "images.pt"), [load(folder / f"rank{i}.pt") for i in (0, 1)]
    total = sum(weight.numel() for weight in make_module()._trainable().values())
    assert sum(rank["n"] for rank in ranks) == total
    assert abs(ranks[0]["n"] / total - 0.5) < 0.05
    for number, rank in enumerate(ranks):
        for images, own in zip(expected, rank["images"], strict=True):
            torch.testing.assert_close(own, images[: 2 - number], rtol=0, atol=1e-4)


def test_what_cannot_be_done_is_refused_by_a_sentence(folder):
    for rank in (0, 1):
        said = load(folder / f"rank{rank}.pt")["said"]
        assert list(said) == [*REFUSED, "ckpt_path"]
        for name, sentence in said.items():
            assert name in sentence
