"""Muon for matrices, AdamW for the rest: against torch's own of both."""

import copy

import pytest
import torch
from torch import nn

from pretzel.errors import UserError
from pretzel.training.optimizer import MuonAdamW, orthogonalise


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Linear(3, 8)
        self.layers = nn.ModuleList([nn.Linear(8, 24), nn.Linear(24, 8), nn.Linear(8, 8)])

    def forward(self, x):
        x = self.embedding(x)
        for layer in self.layers:
            x = layer(x).tanh()
        return x.square().mean()


# the bare module has no dot before its first name
NAMES = ("layers.",)


def model():
    torch.manual_seed(0)
    return Small()


def steps(optimizer, module, number):
    generator = torch.Generator().manual_seed(1)
    for _ in range(number):
        optimizer.zero_grad()
        module(torch.randn(16, 3, generator=generator)).backward()
        optimizer.step()


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 8, 24), (2, 24, 8)])
def test_singular_values_come_to_about_one(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0)).double()
    actual = orthogonalise(matrices, 10)
    values = torch.linalg.svdvals(actual)
    assert values.min() > 0.5
    assert values.max() < 1.5
    # the singular vectors stay: U^T X V is diagonal
    u, _, vt = torch.linalg.svd(matrices, full_matrices=False)
    core = u.mT @ actual @ vt.mT
    torch.testing.assert_close(core, torch.diag_embed(core.diagonal(dim1=1, dim2=2)))
    torch.testing.assert_close(orthogonalise(1000 * matrices, 10), actual)


def test_matrices_step_as_with_torchs_muon():
    ours, theirs = model(), model()
    first = MuonAdamW(
        ours.named_parameters(), lr=0.0, matrix_lr=0.1, weight_decay=0.1, matrices=NAMES
    )
    weights = [layer.weight for layer in theirs.layers]
    second = torch.optim.Muon(weights, lr=0.1, weight_decay=0.1, momentum=0.95)
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        for layer, weight in zip(ours.layers, weights, strict=True):
            # of singular values near one another: theirs iterates in bfloat16
            weight.grad = nn.init.orthogonal_(torch.empty_like(weight), generator=generator)
            layer.weight.grad = weight.grad.clone()
        first.step()
        second.step()
    for layer, weight in zip(ours.layers, weights, strict=True):
        torch.testing.assert_close(layer.weight, weight, atol=1e-2, rtol=0)


def test_the_rest_steps_as_with_adamw():
    ours, theirs = model(), model()
    optimizer = MuonAdamW(
        ours.named_parameters(), lr=0.1, matrix_lr=0.0, weight_decay=0.1, matrices=NAMES
    )
    rest = [p for n, p in theirs.named_parameters() if not (p.ndim == 2 and "layers" in n)]
    steps(optimizer, ours, 3)
    steps(torch.optim.AdamW(rest, lr=0.1, betas=(0.9, 0.95), weight_decay=0.1), theirs, 3)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_resumed_run_takes_the_same_steps():
    whole, halved = model(), model()
    make = lambda module: MuonAdamW(module.named_parameters(), lr=0.01, matrices=NAMES)  # noqa: E731
    first = make(halved)
    steps(first, halved, 2)
    saved = copy.deepcopy(first.state_dict())
    second = make(halved)
    second.load_state_dict(saved)
    steps(second, halved, 2)
    optimizer = make(whole)
    steps(optimizer, whole, 2)
    steps(optimizer, whole, 2)
    for a, b in zip(whole.parameters(), halved.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_closure_computes_the_loss_and_its_gradients():
    module, other = model(), model()
    x = torch.randn(16, 3, generator=torch.Generator().manual_seed(1))

    def closure():
        loss = module(x)
        loss.backward()
        return loss

    given = MuonAdamW(module.named_parameters(), matrices=NAMES).step(closure)
    assert given.item() == pytest.approx(other(x).item())
    steps(MuonAdamW(other.named_parameters(), matrices=NAMES), other, 1)
    for a, b in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_matrix_without_gradient_stays_and_a_zero_gradient_is_finite():
    module = model()
    optimizer = MuonAdamW(module.named_parameters(), matrices=NAMES)
    before = [layer.weight.clone() for layer in module.layers]
    module.layers[0].weight.grad = torch.zeros_like(module.layers[0].weight)
    optimizer.step()
    for layer, weight in zip(module.layers, before, strict=True):
        assert torch.equal(layer.weight, weight)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"lr": -1.0}, "lr must be 0 or positive, got -1"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1"),
        ({"betas": (0.9, 1.5)}, r"betas must be in \[0, 1\), got 1.5"),
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"matrices": ("nothing",)}, "matrices must name parts of two-dimensional parameters"),
    ],
)
def test_mistakes(changed, expected):
    with pytest.raises(UserError, match=expected):
        MuonAdamW(model().named_parameters(), **{"matrices": NAMES, **changed})


def test_parameters_need_names():
    with pytest.raises(UserError, match="params must be named parameters"):
        MuonAdamW(model().parameters())
