"""Initial weights belong to names: the same ones, from the constructors' own distributions."""

import torch
from torch import Tensor, nn

from pretzel.runs.initial_weights import built_by_name


class Parts(nn.Module):
    """Draws in every way that constructors do."""

    def __init__(self, num_first: int = 1, order: int = 1) -> None:
        super().__init__()
        self.first = nn.ModuleList([nn.Linear(4, 4) for _ in range(num_first)])
        self.scaled = nn.Parameter(0.02 * torch.randn(1000))
        self.shifted = nn.Parameter(torch.ones(1000))
        with torch.no_grad():
            self.shifted.add_(torch.randn(1000), alpha=0.1)
        self.halves = nn.Parameter(torch.empty(2, 500))
        for half in self.halves.data:
            half.normal_()
        self.joined = nn.Parameter(torch.cat([torch.rand(500), torch.rand(500)]))
        self.truncated = nn.Parameter(torch.empty(1000))
        nn.init.trunc_normal_(self.truncated, std=2.0, a=-4.0, b=4.0)
        self.orthogonal = nn.Linear(8, 8)
        nn.init.orthogonal_(self.orthogonal.weight)
        self.again = nn.Linear(30, 30)
        nn.init.normal_(self.again.weight, std=3.0)
        nn.init.zeros_(self.again.bias)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(order)
            self.seeded = nn.Linear(4, 4)
        self.own = nn.Parameter(torch.randn(5, generator=torch.Generator().manual_seed(1)))
        self.register_buffer("kept", torch.randperm(100))
        self.tied = self.again.weight


def build(seed: int = 0, **arguments) -> dict[str, Tensor]:
    return built_by_name(lambda: Parts(**arguments), seed).state_dict()


def test_weights_depend_on_the_name_and_not_on_what_was_drawn_before():
    one, other = build(num_first=1), build(num_first=3)
    torch.rand(100)
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert len({value.sum().item() for value in other.values()}) == len(other) - 1  # one is tied


def test_another_seed_gives_others_but_for_what_is_seeded_by_itself():
    one, other = build(seed=0), build(seed=1)
    equal = {name for name, value in one.items() if torch.equal(value, other[name])}
    assert equal == {"seeded.weight", "seeded.bias", "own", "again.bias"}


def test_the_distributions_are_the_constructors_own():
    made = build()
    for name, mean, std in (
        ("scaled", 0, 0.02), ("shifted", 1, 0.1), ("halves", 0, 1), ("joined", 0.5, 12**-0.5),
        ("truncated", 0, 1.76), ("again.weight", 0, 3),
    ):  # fmt: skip
        assert abs(made[name].mean() - mean) < 0.15 * std, name
        assert abs(made[name].std() / std - 1) < 0.1, name
    assert made["truncated"].abs().max() <= 4
    assert made["first.0.weight"].abs().max() <= 0.5  # uniform
    assert not torch.equal(made["halves"][0], made["halves"][1])
    assert not torch.equal(made["joined"][:500], made["joined"][500:])
    weight = made["orthogonal.weight"]
    torch.testing.assert_close(weight @ weight.T, torch.eye(8))
    assert sorted(made["kept"].tolist()) == list(range(100))
    assert torch.equal(made["tied"], made["again.weight"])
    assert made["again.bias"].eq(0).all()


def test_what_a_constructor_seeds_itself_stays():
    torch.manual_seed(5)
    assert torch.equal(build(order=7)["seeded.weight"], Parts(order=7).seeded.weight)


def test_loaded_weights_are_not_overwritten():
    loaded = Parts().state_dict()

    def load() -> Parts:
        parts = Parts()
        parts.load_state_dict(loaded)
        return parts

    made = built_by_name(load, 0).state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in made.items())


def test_the_global_state_is_left_alone():
    before = torch.get_rng_state()
    build()
    assert torch.equal(torch.get_rng_state(), before)


def test_nothing_happens_without_memory():
    with torch.device("meta"):
        assert built_by_name(lambda: nn.Linear(3, 3), 0).weight.is_meta


def test_what_has_no_shape_yet_is_left_to_its_first_forward():
    module = built_by_name(lambda: nn.Sequential(nn.Linear(2, 3), nn.LazyLinear(4)), 0)
    assert torch.equal(
        module[0].weight, built_by_name(lambda: nn.Sequential(nn.Linear(2, 3)), 0)[0].weight
    )
    assert module(torch.zeros(1, 2)).shape == (1, 4)
