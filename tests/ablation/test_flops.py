"""FLOPs are counted without memory as they are with it."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pretzel.ablation.planning.config_resolver import Resolver
from pretzel.ablation.planning.flops import forward_flops, shapes_alone
from pretzel.ablation.planning.model_builder import PlanningCLI
from pretzel.runs.config.overlay import Config, fold, override, read
from pretzel.runs.config.yaml_lines import Source
from pretzel.training.example_forward import run_example

ABLATIONS = Path(__file__).parents[2] / "ablations"
INTERLEAVING = "model.pretzel.interleaving"
PART = "pretzel.interleave."


class Example(nn.Module):
    def __init__(self, model: nn.Module, *, has_images: bool) -> None:
        super().__init__()
        self.model = model
        self.example_forward = partial(run_example, model, has_images=has_images)


@pytest.fixture(scope="module")
def planning():
    cli = PlanningCLI()
    return cli, Resolver(cli)


def changed(config: Config, changes: dict) -> Config:
    for key, value in changes.items():
        config = override(config, key, value, Source(name="test"))
    return config


@pytest.mark.parametrize("has_images", [True, False])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {INTERLEAVING: {"class_path": PART + "Unconditional"}},
        {INTERLEAVING: {"class_path": PART + "Tiled", "init_args": {"word": "VF"}}},
        {INTERLEAVING: {"class_path": PART + "MixtureOfTransformers"},
         "model.pretzel.split.deep": 0},
        {"model.pretzel.pack_length": 256},
        {"model.pretzel.shallow.transform": {"class_path": "pretzel.flow.Spline"}},
    ],
    ids=["stacked", "unconditional", "tiled", "mixture", "packed", "spline"],
)  # fmt: skip
def test_a_model_costs_what_it_costs_with_memory(planning, changes, has_images):
    cli, resolve = planning
    resolved = resolve(changed(fold([read(ABLATIONS / "base" / "easy_vqa.yaml")]), changes))
    with shapes_alone():
        without = cli.build_model("fit", resolved.namespace)
    assert all(parameter.is_meta for parameter in without.parameters())
    found = forward_flops(Example(without.pretzel, has_images=has_images))
    real = Example(cli.build_model("fit", resolved.namespace).pretzel, has_images=has_images)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        real.example_forward()
    assert found == counter.get_total_flops()
    assert found


@pytest.mark.parametrize("name", ["starflow_1b", "tarflow_imagenet64", "starflow2"])
def test_paper_sizes_are_counted_without_loading_anything(planning, name):
    cli, resolve = planning
    resolved = resolve(fold([read(ABLATIONS / "paper" / f"{name}.yaml")]))
    with shapes_alone():
        module = cli.build_model("fit", resolved.namespace)
    found = forward_flops(Example(module.pretzel, has_images=True))
    positions = module.pretzel.latent.num_positions
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    assert found is not None
    assert found > 2 * positions * trained  # each weight meets each position; attention on top


def test_what_offers_no_example_or_looks_at_data_is_unknown():
    class Looks(nn.Linear):
        def example_forward(self) -> None:
            if self.weight.sum().item() > 0:
                raise AssertionError

    with shapes_alone():
        assert forward_flops(nn.Linear(2, 2)) is None
        assert forward_flops(Looks(2, 2)) is None
