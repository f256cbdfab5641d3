"""Training and sampling of our flow beside the bare layers and the plain reference."""

from dataclasses import replace

import torch

from benchmarks import bare, floor, reference
from benchmarks.measure import Task
from benchmarks.size import Problem, Size, build
from pretzel.flow import AFBlock, CausalTransformer
from pretzel.flow.compiled_decoding import compiled_decoding
from pretzel.sampling.guidance import GaussianMixing
from pretzel.sampling.samplers import Sequential
from pretzel.sampling.stack import invert_stack
from pretzel.typing import Float, Tensor

BARE = "bare layers"
REFERENCE = "reference"
WEIGHT = 2.0
"""Guidance weight."""


def tasks(size: Size, device: torch.device, *, with_compiled: bool = False) -> list[Task]:
    """Return a training step and one-by-one sampling, without and with guidance.

    Where asked, all of it with compiled layers as well.
    """
    problem = build(size, device)
    trained = training(problem, device)
    sampled = [sampling(problem, w, device) for w in ((0.0, WEIGHT) if size.text else (0.0,))]
    if not with_compiled:
        return [trained, *sampled]
    compiled = [compiled_training(trained, problem), *map(compiled_sampling, sampled)]
    return [trained, *sampled, *compiled]


def training(problem: Problem, device: torch.device) -> Task:
    """Return a forward and backward pass: ours, the bare layers', the reference's.

    The bare layers' result is a number of its own; ours and the reference's are one loss.
    """
    stack, x, text = problem.stack, problem.x, problem.text
    parameters = list(stack.parameters())

    def ours() -> Float[Tensor, ""]:
        flowed = stack(x, text)
        return _stepped(parameters, flowed.z, flowed.logdet)

    def only_layers() -> Float[Tensor, ""]:
        out = bare.run(stack, x, text)
        return _stepped(parameters, out, torch.zeros_like(x[:, 0, 0]))

    def plain() -> Float[Tensor, ""]:
        z, logdet = reference.forward_all(_blocks(problem), x, text)
        return _stepped(parameters, z, logdet)

    return Task(
        name=f"training step, {_grid(problem)}",
        arms={"ours": ours, BARE: only_layers, REFERENCE: plain},
        goals={BARE: 1 / 0.95, REFERENCE: 1.0},
        floor=floor.of_training(stack, problem.size, device),
        equal={REFERENCE: 1e-4},
        turns=4,
    )


def compiled_training(training: Task, problem: Problem) -> Task:
    """Return the same with layers compiled beside both."""
    transformers = [m for m in problem.stack.modules() if isinstance(m, CausalTransformer)]

    def compiled() -> Float[Tensor, ""]:
        for transformer in transformers:
            transformer.compiles = True
        loss = training.arms["ours"]()
        for transformer in transformers:
            transformer.compiles = False
        return loss

    return replace(
        training,
        name=f"compiled {training.name}",
        arms={"compiled": compiled, **{name: training.arms[name] for name in ("ours", REFERENCE)}},
        goals={REFERENCE: 0.85},
        equal={"ours": 1e-5, **training.equal},
    )


def sampling(problem: Problem, weight: float, device: torch.device) -> Task:
    """Return one-by-one sampling, with Gaussian mixing in the deep block where ``weight`` > 0."""
    stack, z, size = problem.stack, problem.x, problem.size
    guidance = GaussianMixing(weight) if weight else None

    def ours() -> Float[Tensor, "b n d"]:
        with torch.inference_mode():
            return invert_stack(
                stack,
                z,
                Sequential(),
                context=problem.text,
                null_context=problem.null,
                guidance=guidance,
            ).x

    def plain() -> Float[Tensor, "b n d"]:
        with torch.inference_mode():
            text = problem.both if weight else problem.text
            return reference.inverse_all(_blocks(problem), z, text, weight)

    return Task(
        name=f"{'guided ' if weight else ''}sampling, {_grid(problem)}",
        arms={"ours": ours, REFERENCE: plain},
        goals={REFERENCE: 0.4 if weight else 1.0},
        floor=floor.of_sampling(stack, size, weight > 0, device),
        equal={REFERENCE: 1e-3},
    )


def compiled_sampling(sampling: Task) -> Task:
    """Return the same with layers compiled beside both."""

    def compiled() -> Float[Tensor, "b n d"]:
        with compiled_decoding():
            return sampling.arms["ours"]()

    return replace(
        sampling,
        name=f"compiled {sampling.name}",
        arms={"compiled": compiled, **sampling.arms},
        goals={REFERENCE: 0.35},
        equal={"ours": 1e-4, **sampling.equal},
    )


def _stepped(parameters: list[torch.nn.Parameter], z: Tensor, logdet: Tensor) -> Float[Tensor, ""]:
    loss = z.square().mean() / 2 - logdet.mean() / z[0].numel()
    for parameter in parameters:
        parameter.grad = None
    torch.autograd.backward(loss)
    value: Tensor = loss.detach()
    return value


def _blocks(problem: Problem) -> list[reference.Block]:
    # Embeddings depend on weights, so that every pass makes them anew.
    return [
        reference.from_block(block, problem.size.text)
        for block in problem.stack
        if isinstance(block, AFBlock)
    ]


def _grid(problem: Problem) -> str:
    return f"{problem.size.side}x{problem.size.side}"
