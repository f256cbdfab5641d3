"""Density and sampling in 64 dimensions, beside the autoregressive flows of zuko and normflows.

All have as many transforms, in alternating orders, and about as many parameters. Theirs read a
vector with masked dense layers: 64 dimensions, each conditioned on all before it, so that a sample
takes 64 passes a transform. Ours reads 16 positions of 4 channels with one shared network, so that
a sample takes 16 steps a block; the channels of a position are independent given what comes
before it, and mix over the blocks. Shared weights are used at every position: at equal parameters
a density costs ours 16 times the operations.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import normflows
import torch
import zuko
from torch import nn

from benchmarks import floor
from benchmarks.measure import Task
from pretzel.flow import AFBlock, AffineSoftplus, CausalTransformer, Flip, FlowStack, Raster
from pretzel.rng import stream
from pretzel.typing import Tensor

ModuleT = TypeVar("ModuleT", bound=nn.Module)

DIMENSIONS = 64
CHANNELS = 4


def tasks(width: int, transforms: int, batch: int, device: torch.device) -> list[Task]:
    """Return log-density and sampling of a batch.

    Args:
        width: Channels of our transformers, one layer a block.
        transforms: Transforms of each flow.
        batch: Vectors.
        device: Where all compute.
    """
    stack = ours(width, transforms).to(device)
    budget = count(stack)
    maf = fitted(lambda hidden: zuko_maf(hidden, transforms), budget).to(device)
    made = fitted(lambda hidden: normflows_maf(hidden, transforms), budget).to(device)
    x = torch.randn(batch, DIMENSIONS, generator=stream("benchmark")).to(device)
    cut = (-1, DIMENSIONS // CHANNELS, CHANNELS)

    def our_density() -> Tensor:
        flowed = stack(x.view(cut))
        half_squares: Tensor = flowed.z.square().sum(dim=(1, 2)) / 2
        out: Tensor = flowed.logdet - half_squares - DIMENSIONS * math.log(2 * math.pi) / 2
        return out

    def quietly(function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with torch.no_grad():
                return function()

        return run

    def name(package: str, flow: nn.Module) -> str:
        return f"{package}, {count(flow):,} parameters"

    names = name("zuko MAF", maf), name("normflows MAF", made)
    positions = DIMENSIONS // CHANNELS
    least = floor.of_passes(stack, [batch * positions] * transforms, positions, device)
    return [
        Task(
            name=f"log-density of {batch} 64-d vectors, {budget:,} parameters",
            arms={
                "ours": quietly(our_density),
                names[0]: quietly(lambda: zuko_density(maf, x)),
                names[1]: quietly(lambda: normflows_density(made, x)),
            },
            floor=least,
        ),
        Task(
            name=f"sampling of {batch} 64-d vectors, {budget:,} parameters",
            arms={
                "ours": quietly(lambda: stack.inverse(x.view(cut)).flatten(1)),
                names[0]: quietly(lambda: zuko_samples(maf, x)),
                names[1]: quietly(lambda: normflows_samples(made, x)),
            },
            floor=least,
        ),
    ]


def ours(width: int, transforms: int) -> FlowStack:
    """Return blocks of one layer over 16 positions of 4 channels."""
    blocks = [
        AFBlock(
            CHANNELS,
            (DIMENSIONS // CHANNELS,),
            1,
            Flip() if number % 2 else Raster(),
            transform=AffineSoftplus(),
            conditioner=partial(CausalTransformer, width=width, head_dim=32),
        )
        for number in range(transforms)
    ]
    for block in blocks:
        nn.init.normal_(block.head.weight, std=0.3 * width**-0.5)
    return FlowStack(list(blocks))


def zuko_maf(hidden: int, transforms: int) -> zuko.flows.Flow:
    """Return zuko's MAF, two hidden layers a transform."""
    return zuko.flows.MAF(DIMENSIONS, transforms=transforms, hidden_features=(hidden, hidden))


def zuko_density(flow: zuko.flows.Flow, x: Tensor) -> Tensor:
    """Return log-densities."""
    out: Tensor = flow().log_prob(x)
    return out


def zuko_samples(flow: zuko.flows.Flow, z: Tensor) -> Tensor:
    """Return what noise becomes."""
    out: Tensor = flow().transform.inv(z)
    return out


def normflows_maf(hidden: int, transforms: int) -> normflows.NormalizingFlow:
    """Return normflows' MAF, one residual block a transform.

    It is reversed, so that a density takes one pass and a sample many, as with the others.
    """
    flows: list[nn.Module] = []
    for number in range(transforms):
        made = normflows.flows.MaskedAffineAutoregressive(DIMENSIONS, hidden, num_blocks=1)
        flows.append(normflows.flows.Reverse(made))
        if number + 1 < transforms:
            flows.append(Backwards())
    base = normflows.distributions.DiagGaussian(DIMENSIONS, trainable=False)
    return normflows.NormalizingFlow(base, flows)


def normflows_density(flow: normflows.NormalizingFlow, x: Tensor) -> Tensor:
    """Return log-densities."""
    out: Tensor = flow.log_prob(x)
    return out


def normflows_samples(flow: normflows.NormalizingFlow, z: Tensor) -> Tensor:
    """Return what noise becomes."""
    out: Tensor = flow.forward(z)
    return out


class Backwards(normflows.flows.Flow):  # type: ignore[misc]
    """Turns the order of the dimensions round."""

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Flip."""
        return z.flip(1), z.new_zeros(len(z))

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Flip."""
        return self.forward(z)


def count(module: nn.Module) -> int:
    """Return the trainable parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def fitted(build: Callable[[int], ModuleT], budget: int) -> ModuleT:
    """Return the module whose hidden width brings it nearest to a budget of parameters."""

    def parameters(hidden: int) -> int:
        with torch.random.fork_rng(devices=[]):
            return count(build(hidden))

    high = 2
    while parameters(high) < budget:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if parameters(middle) >= budget else (middle, high)
    return build(min((low, high), key=lambda hidden: abs(parameters(hidden) - budget)))
