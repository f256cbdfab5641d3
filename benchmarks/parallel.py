"""Sampling by iteration beside sampling one by one, on a flow trained on real images.

Iteration is quick because the positions of images depend weakly on most of those before them, and
how weakly is a matter of training: random weights would prove nothing.
"""

import time
from dataclasses import dataclass
from itertools import islice

import torch

from benchmarks import floor
from benchmarks.measure import Task
from benchmarks.size import Size, build
from datamodules import EasyVQA
from pretzel.flow import FlowStack
from pretzel.latent import Pixels
from pretzel.rng import stream
from pretzel.sampling.samplers import GaussSeidelJacobi, Jacobi, Sampler, Sequential, Work
from pretzel.sampling.stack import Sampled, invert_stack
from pretzel.typing import Float, Tensor

IMAGE_SIDE = 64
NOISE = 0.1
"""Standard deviation of the training noise, pixels in [-1, 1]."""
GREATEST_CHANGE = 1e-3
"""Mean absolute change of samples by iteration that is aimed at, pixels in [-1, 1]."""


def channels(side: int) -> int:
    """Return the channels of a patch where ``side`` patches make a side of the picture."""
    return int(3 * (IMAGE_SIDE // side) ** 2)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A flow trained on the embedded pictures, and how that went.

    Attributes:
        stack: The flow.
        size: Its sizes.
        losses: Mean loss of the first and of the last tenth of the steps, nats a dimension.
        steps: Steps.
        seconds: Time they took, on the clock.
    """

    stack: FlowStack
    size: Size
    losses: tuple[float, float]
    steps: int
    seconds: float


def train(size: Size, steps: int, device: torch.device) -> Trained:
    """Train on easy-VQA's first 1,000 training pictures cut into patches, alike at every call.

    Args:
        size: Sizes; the side must divide 64 pixels and the channels be those of a patch.
        steps: AdamW steps of ``size.batch`` pictures, pixels noised.
        device: Where to train.
    """
    latents = Pixels(IMAGE_SIDE, IMAGE_SIDE // size.side, NOISE)
    samples = islice(EasyVQA().samples("train", IMAGE_SIDE), min(steps * size.batch, 1000))
    images = torch.stack([sample.image for sample in samples])
    data = latents.encode(images).to(device)
    generator = stream("benchmark", "train")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        stack = build(size, device).stack
    for block in stack:
        torch.nn.init.zeros_(block.get_parameter("head.weight"))  # the identity to begin with
    optimizer = torch.optim.AdamW(stack.parameters(), lr=1e-3, betas=(0.9, 0.95))
    losses = []
    begin = time.perf_counter()
    for _ in range(steps):
        rows = torch.randint(len(data), (size.batch,), generator=generator)
        noise = torch.randn(size.batch, *data.shape[1:], generator=generator)
        flowed = stack(data[rows.to(device)] + latents.noise * noise.to(device))
        loss = (flowed.z.square().sum(dim=(1, 2)) / 2 - flowed.logdet).mean() / data[0].numel()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(stack.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.detach())
    tenth = max(steps // 10, 1)
    ends = torch.stack(losses[:tenth]).mean(), torch.stack(losses[-tenth:]).mean()
    return Trained(
        stack=stack,
        size=size,
        losses=(float(ends[0]), float(ends[1])),
        steps=steps,
        seconds=time.perf_counter() - begin,
    )


def tasks(
    trained: Trained, batch: int, tolerance: float, device: torch.device
) -> tuple[list[Task], list[str]]:
    """Return Jacobi and Gauss-Seidel-Jacobi beside one by one, and what iteration took.

    Args:
        trained: The flow.
        batch: Samples.
        tolerance: Relative mean square change at which iteration stops.
        device: Where to sample.
    """
    stack, size = trained.stack, trained.size
    generator = stream("benchmark", "noise")
    z = torch.randn(batch, size.num_positions, size.channels, generator=generator).to(device)
    schedules = GaussSeidelJacobi(tolerance=tolerance)
    exact = _solve(stack, z, Sequential()).x
    made, notes = [], []
    for sampler in (Jacobi(tolerance=tolerance), schedules):
        name = type(sampler).__name__
        solved = _solve(stack, z, sampler)  # finds the schedule, which is kept
        change = (solved.x - exact).abs()
        met = "met" if float(change.mean()) < GREATEST_CHANGE else "missed"
        segments = f", segments {list(schedules.schedule.values())}" if sampler is schedules else ""
        notes.append(
            f"{name}, {batch} samples: tolerance {tolerance:g}, network calls of each block "
            f"{[work.evaluations for work in solved.work]} in place of {size.num_positions}"
            f"{segments}; mean absolute change of the samples {float(change.mean()):.1e} (goal < "
            f"{GREATEST_CHANGE:g}: {met}), largest {float(change.max()):.1e}, pixels in [-1, 1]."
        )
        made.append(_task(trained, z, sampler, solved.work, device))
    return made, notes


def _task(
    trained: Trained,
    z: Float[Tensor, "b n d"],
    sampler: Sampler,
    work: tuple[Work, ...],
    device: torch.device,
) -> Task:
    stack, size = trained.stack, trained.size
    positions = [len(z) * done.positions for done in reversed(work)]
    return Task(
        name=f"sampling of a trained flow, {len(z)} at {size.side}x{size.side}",
        arms={
            type(sampler).__name__: lambda: _solve(stack, z, sampler).x,
            "Sequential": lambda: _solve(stack, z, Sequential()).x,
        },
        goals={"Sequential": 1 / 3},
        floor=floor.of_passes(stack, positions, size.num_positions, device),
        equal={"Sequential": 0.05},
    )


def _solve(stack: FlowStack, z: Float[Tensor, "b n d"], sampler: Sampler) -> Sampled:
    with torch.inference_mode():
        return invert_stack(stack, z, sampler)
