"""The reference of the benchmarks is no straw man: golden vectors, and equal to our blocks."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from benchmarks import reference
from pretzel.flow import AFBlock, AffineSoftplus, CausalTransformer, Flip, FlowStack, Raster
from pretzel.testing import perturb
from pretzel.testing.law_case import normal

TRANSFORMER = partial(CausalTransformer, width=16, head_dim=8)
GOLDEN = Path(__file__).parents[1] / "golden"


def close(actual, expected):
    scale = max(1.0, float(expected.detach().abs().max()))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10 * scale)


def load(name):
    with safe_open(GOLDEN / f"{name}.safetensors", framework="pt") as file:
        options = json.loads(file.metadata()["golden"])["ctor"]
        tensors = {key: file.get_tensor(key).double() for key in file.keys()}  # noqa: SIM118
    return options, tensors


def state(tensors, prefix):
    start = f"param.{prefix}"
    return {key[len(start) :]: value for key, value in tensors.items() if key.startswith(start)}


@pytest.fixture(scope="module")
def single():
    options, tensors = load("S1")
    block = reference.from_published(
        state(tensors, "block."), num_layers=options["num_layers"], head_dim=options["head_dim"],
        grid=(4, 4), training_side=4, num_text=None, sees_text=False, flip=False,
        soft_clip=float(options["soft_clip"]),
    )  # fmt: skip
    return block, tensors


@pytest.fixture(scope="module")
def model():
    options, tensors = load("S3")
    blocks = [
        reference.from_published(
            state(tensors, f"blocks.{i}."), num_layers=layers, head_dim=options["head_dim"],
            grid=(6, 6), training_side=6, num_text=6, sees_text=i == 2, flip=i % 2 == 0,
            soft_clip=float(options["soft_clip"]),
        )
        for i, layers in enumerate(options["layers_per_block"])
    ]  # fmt: skip
    return blocks, tensors


def tokens(image):
    return image.flatten(2).transpose(1, 2)  # patch size 1


def test_one_published_block(single):
    block, tensors = single
    z, logdet = reference.forward(block, tensors["in.x"].flatten(1, 2))
    close(z.unflatten(1, (4, 4)), tensors["out64.fwd.z"])
    close(logdet, tensors["out64.fwd.logdet"])
    x = reference.inverse(block, tensors["in.noise"].flatten(1, 2))
    close(x.unflatten(1, (4, 4)), tensors["out64.rev.x"])


def test_a_published_model_forward(model):
    blocks, tensors = model
    x = tokens(tensors["in.x"])
    for i, block in enumerate(blocks):
        x, logdet = reference.forward(block, x, tensors["in.y"])
        close(logdet, tensors[f"out64.fwd.logdet{i}"])
        close(x.unflatten(1, (6, 6)), tensors[f"out64.fwd.outputs{i + 1}"])
    close(x, tokens(tensors["out64.fwd.z"]))


def test_a_published_model_sampling(model):
    blocks, tensors = model
    x = reference.inverse_all(blocks, tokens(tensors["in.noise"]), tensors["in.y"])
    close(x, tokens(tensors["out64.rev.x"]))


def test_a_published_model_sampling_with_guidance(model):
    blocks, tensors = model
    x = reference.inverse_all(blocks, tokens(tensors["in.noise"]), tensors["in.y_cfg"], 2.0)
    close(x, tokens(tensors["out64.rev_cfg.x"]))


def test_with_our_weights_it_computes_what_our_stack_computes():
    stack = FlowStack(
        [
            AFBlock(3, (2, 4), layers, order, transform=AffineSoftplus(), conditioner=TRANSFORMER)
            for layers, order in ((2, Raster()), (1, Flip()))
        ]
    ).double()
    perturb(stack)
    blocks = [reference.from_block(block) for block in stack.blocks]
    x, noise = normal(2, 8, 3), normal(2, 8, 3, key="z")
    flowed = stack(x)
    z, logdet = reference.forward_all(blocks, x)
    close(z, flowed.z)
    close(logdet, flowed.logdet)
    with torch.no_grad():
        close(reference.inverse_all(blocks, noise), stack.inverse(noise))
    # the very same weights: a gradient through the reference is ours
    ours = torch.autograd.grad(flowed.logdet.sum() + flowed.z.sum(), list(stack.parameters()))
    theirs = torch.autograd.grad(logdet.sum() + z.sum(), list(stack.parameters()))
    for own, other in zip(ours, theirs, strict=True):
        close(other, own)
