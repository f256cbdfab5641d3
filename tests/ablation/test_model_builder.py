"""Models of a plan: what many of them have in common is made once, and shared by none."""

from pathlib import Path

import pytest
import torch
from torch import nn

from pretzel.ablation.planning.config_resolver import Resolver
from pretzel.ablation.planning.flops import forward_flops, shapes_alone
from pretzel.ablation.planning.model_builder import PlanningCLI
from pretzel.runs.config.overlay import fold, override, read
from pretzel.runs.config.yaml_lines import Source
from pretzel.vlm.tiny import stream

BASE = Path(__file__).parents[2] / "ablations" / "base" / "easy_vqa.yaml"
WIDTH = "model.pretzel.deep.conditioner.width"


@pytest.fixture(scope="module")
def planning():
    cli = PlanningCLI()
    return cli, Resolver(cli)


def build(planning, width):
    cli, resolve = planning
    config = override(fold([read(BASE)]), WIDTH, width, Source(name="test"))
    return cli.build_shapes("fit", resolve(config).namespace)


def test_a_part_that_many_models_have_is_read_once_and_shared_by_none(planning, monkeypatch):
    reads = []
    load = stream.load_weights
    monkeypatch.setattr(
        stream, "load_weights", lambda path, **how: reads.append(path) or load(path, **how)
    )
    planning[0]._parts.clear()
    models = [build(planning, width) for width in (64, 96, 64)]
    assert len(reads) == 1
    parts = [id(part) for model in models for part in (*model.modules(), *model.parameters())]
    assert len(parts) == len(set(parts))
    assert all(parameter.is_meta for model in models for parameter in model.parameters())
    frozen = [[p.requires_grad for p in model.parameters()] for model in models]
    assert frozen[0] == frozen[1] == frozen[2]
    first, wide, again = map(forward_flops, models)
    assert first == again < wide
    planning[0]._parts.clear()
    assert forward_flops(build(planning, 96)) == wide


class Odd(nn.Module):
    """What cannot be pickled is made each time."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size))
        self.double = lambda x: 2 * x


def test_what_cannot_be_copied_is_made_anew(planning):
    cli, _ = planning
    cli.constructed, cli._reuses = set(), True
    first, second = cli._construct(Odd, size=3), cli._construct(Odd, size=3)
    assert first is not second
    assert first.weight is not second.weight
    assert cli.constructed == {Odd}


@pytest.mark.parametrize("fill", [
    nn.init.kaiming_uniform_, nn.init.xavier_normal_, nn.init.trunc_normal_, nn.init.normal_,
    torch.Tensor.uniform_,
])  # fmt: skip
def test_random_numbers_without_memory_are_not_drawn(fill):
    with shapes_alone():
        weight = torch.empty(3, 4)
        assert fill(weight) is weight
    kept = torch.full((3, 4), 7.0)
    with shapes_alone():
        fill(kept)
    assert not (kept == 7.0).all()  # what has memory is filled
